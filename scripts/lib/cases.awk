# Reads docs/cases.list, then every source file; writes docs/cases.md to `page`, and what is wrong to
# standard error. `mode` is write, check or gaps: see scripts/cases.

BEGIN {
  # Where the tests of a path run, the longest prefix deciding. A test in a place that is not here is
  # an error: nobody would know how to run it.
  place("codec/", "bytes alone", "cargo test -p ringpost-codec")
  place("engine/core/src/", "the core alone", "cargo test -p ringpost-core")
  place("engine/simulator/", "pretend time: core and broker model as two ends", "cargo test -p ringpost-simulator")
  place("engine/memory/", "memory alone", "cargo test -p ringpost-memory")
  place("engine/memory/src/interleavings.rs", "every interleaving (loom)", "scripts/test models")
  place("engine/src/", "the engine's parts", "cargo test -p ringpost --lib")
  place("engine/src/driver/", "real sockets: ring, ring with tiny queues, epoll", "cargo test -p ringpost --lib driver")
  place("engine/tests/", "real sockets: engine and broker model, both drivers", "cargo test -p ringpost")
  place("engine/tests/real_kafka.rs", "real Kafka", "scripts/test kafka")
  place("bench-harness/broker/", "the broker model", "cargo test -p ringpost-broker")
  place("bench-harness/broker/tests/real_kafka.rs", "the broker model beside real Kafka", "scripts/test kafka")
  place("bench-harness/chaos/", "the proxy and the history of scripts/chaos", "cargo test -p ringpost-chaos")
  place("bench-harness/", "the measuring tool", "cargo test -p ringpost-bench")
  place("fuzz/", "fuzz targets", "scripts/fuzz")
  place("scripts/lossy", "real sockets over a lossy loopback", "scripts/test lossy")
  place("scripts/chaos", "a real cluster under faults", "scripts/chaos")
  place("scripts/", "processes and real Kafka", "the script itself")

  # What the engine does not have, so that a case about it cannot have a test. Any other case that the
  # list calls not offered is an error: else a word in the list would do for a test.
  may_miss["C5"] = may_miss["H15"] = may_miss["Z3"] = 1
}

function place(prefix, words, command) {
  places[++place_count] = prefix
  place_words[prefix] = words
  place_command[prefix] = command
}

function place_of(path, i, best) {
  best = ""
  for (i = 1; i <= place_count; i++) {
    if (index(path, places[i]) == 1 && length(places[i]) > length(best)) best = places[i]
  }
  return best
}

function wrong(words) {
  problems++
  if (mode == "check") print "scripts/cases: " words > "/dev/stderr"
}

function trimmed(text) {
  sub(/^[ \t]+/, "", text)
  sub(/[ \t]+$/, "", text)
  return text
}

# A cell of a table.
function cell(text) {
  gsub(/\|/, "\\|", text)
  return text
}

FNR == 1 {
  end_of_file()
  file = FILENAME
  in_list = file == "docs/cases.list"
}

# ---- the list ---------------------------------------------------------------------------------------

in_list && (/^#/ || /^[ \t]*$/) { next }

in_list {
  fields = split($0, field, "|")
  for (i = 1; i <= fields; i++) field[i] = trimmed(field[i])
  if (field[1] ~ /^= [A-Z]$/ && fields == 2) {
    group = substr(field[1], 3)
    groups[++group_count] = group
    group_title[group] = field[2]
  } else if (field[1] == "later" && fields == 3) {
    later_count++
    later_ids[later_count] = field[2]
    later_with[later_count] = field[3]
    n = split(field[2], each, " ")
    for (i = 1; i <= n; i++) later[each[i]] = 1
  } else if (field[1] ~ /^[A-Z][0-9]+$/ && (fields == 4 || fields == 5)) {
    id = field[1]
    if (id in stimulus) wrong("docs/cases.list has " id " twice")
    if (substr(id, 1, 1) != group) wrong("docs/cases.list has " id " in group " group)
    ids[++id_count] = id
    group_of[id] = group
    stimulus[id] = field[2]
    expected[id] = field[3]
    source[id] = field[4]
    if (fields == 5) {
      if (sub(/^not offered: */, "", field[5]) != 1 || field[5] == "") {
        wrong("docs/cases.list:" FNR ": the fifth column of " id " is not \"not offered: why\"")
      } else if (!(id in may_miss)) {
        wrong(id " is said to be not offered, and scripts/lib/cases.awk does not know it as such")
      } else {
        missing[id] = field[5]
      }
    }
  } else {
    wrong("docs/cases.list:" FNR ": not a line of the list: " $0)
  }
  next
}

# ---- the sources ------------------------------------------------------------------------------------

# A program whose whole run is a test.
/^[ \t]*(#|\/\/) case: / {
  text = $0
  sub(/^[ \t]*(#|\/\/) case: /, "", text)
  colon = index(text, ":")
  observable = colon ? trimmed(substr(text, colon + 1)) : ""
  n = split(colon ? substr(text, 1, colon - 1) : text, each, /[ ,]+/)
  for (i = 1; i <= n; i++) {
    if (each[i] != "") add(each[i], file, "", observable)
  }
  next
}

file !~ /\.rs$/ { next }

# The first paragraph of a doc comment.
/^[ \t]*\/\/\// {
  text = $0
  sub(/^[ \t]*\/\/\/[ \t]?/, "", text)
  if (trimmed(text) == "") doc_over = 1
  if (!doc_over) doc = doc (doc == "" ? "" : " ") trimmed(text)
  next
}

/^[ \t]*#\[test\]/ { is_test = 1 }
/^[ \t]*#\[/ {
  in_attribute = $0 !~ /\]/
  next
}
in_attribute {
  in_attribute = $0 !~ /\]/
  next
}

/^[ \t]*(pub(\([a-z]+\))? )?fn [a-z][0-9]+_/ {
  name = $0
  sub(/^[ \t]*(pub(\([a-z]+\))? )?fn /, "", name)
  sub(/[^a-z0-9_].*/, "", name)
  found_name[++found] = name
  found_doc[found] = doc
  found_test[found] = is_test
}

{
  # A name that stands by itself is given to a macro that makes tests of functions.
  if ($0 !~ /fn /) {
    text = $0
    while (match(text, /[a-z][a-z0-9_]*/)) {
      word = substr(text, RSTART, RLENGTH)
      before = RSTART > 1 ? substr(text, RSTART - 1, 1) : ""
      text = substr(text, RSTART + RLENGTH)
      if (word ~ /^[a-z][0-9]+_/ && before !~ /[A-Za-z0-9_.:]/ && text !~ /^[A-Z(.:]/) listed[word] = 1
    }
  }
  doc = ""
  doc_over = is_test = 0
}

END {
  end_of_file()
  if (mode == "gaps") {
    for (i = 1; i <= id_count; i++) {
      id = ids[i]
      if (!tests[id] && !(id in missing)) print id " " stimulus[id] " -> " expected[id]
    }
    exit
  }
  for (i = 1; i <= id_count; i++) {
    id = ids[i]
    if (!tests[id] && !(id in missing)) wrong(id " has no test: " stimulus[id])
    if (tests[id] && id in missing) wrong(id " has a test, and is said to be not offered")
  }
  write_page()
  close(page)
  if (problems) {
    print "scripts/cases: " problems (problems == 1 ? " thing is" : " things are") " wrong; scripts/cases --check tells them" > "/dev/stderr"
    if (mode == "check") exit 1
  }
}

# What a file's functions show is known at its end, where the macros' lists are.
function end_of_file(i, j, n, part, is_known) {
  for (i = 1; i <= found; i++) {
    n = split(found_name[i], part, "_")
    if (!found_test[i] && !(found_name[i] in listed)) {
      if (is_id(toupper(part[1]))) wrong(file ": " found_name[i] " is named like a case, but nothing runs it")
      continue
    }
    for (j = 1; j <= n && part[j] ~ /^[a-z][0-9]+$/; j++) add(toupper(part[j]), file, found_name[i], found_doc[i])
  }
  found = 0
  split("", listed)
  doc = ""
  doc_over = is_test = in_attribute = 0
}

function is_id(id) {
  return id in stimulus || id in later
}

function add(id, path, name, observable, where, label) {
  label = path (name == "" ? "" : ": " name)
  where = place_of(path)
  if (!is_id(id)) {
    wrong(label ": " id " is no case of docs/cases.list")
    return
  }
  if (observable == "") wrong(label " does not say what it looks at")
  if (where == "") {
    wrong(label ": scripts/lib/cases.awk does not know where this runs")
    return
  }
  if (id in later) return
  tests[id]++
  test_path[id, tests[id]] = path
  test_name[id, tests[id]] = name
  test_observable[id, tests[id]] = observable
  test_where[id, tests[id]] = where
  if (!((path, name) in counted)) {
    counted[path, name] = 1
    place_tests[where]++
    all_tests++
  }
}

# ---- the page ---------------------------------------------------------------------------------------

function out(line) {
  print line > page
}

function write_page(g, i, j, id, shown) {
  for (i = 1; i <= id_count; i++) if (tests[ids[i]]) shown++
  out("# The cases, and the tests that show them")
  out("")
  out("Written by `scripts/cases` from [cases.list](cases.list) and the tests; `scripts/cases --check` fails when")
  out("a case has no test, or this page is out of date. The list is a floor: what is like a case must hold too.")
  out("")
  out(shown + 0 " of " id_count " cases are shown by " all_tests + 0 " tests:")
  out("")
  out("| where a test runs | how to run those | tests |")
  out("|---|---|---|")
  for (i = 1; i <= place_count; i++) {
    if (place_tests[places[i]]) {
      out("| " place_words[places[i]] " (`" places[i] "`) | `" place_command[places[i]] "` | " place_tests[places[i]] " |")
    }
  }
  for (g = 1; g <= group_count; g++) {
    out("")
    out("## " groups[g] ": " group_title[groups[g]])
    for (i = 1; i <= id_count; i++) {
      id = ids[i]
      if (group_of[id] == groups[g] && !(id in missing)) write_case(id)
    }
  }
  out("")
  out("## Not offered")
  out("")
  out("Cases about something the engine does not have.")
  out("")
  out("| case | what is done | what would have to be seen | why there is no test |")
  out("|---|---|---|---|")
  for (i = 1; i <= id_count; i++) {
    id = ids[i]
    if (id in missing) out("| " id " | " cell(stimulus[id]) " | " cell(expected[id]) " | " cell(missing[id]) " |")
  }
  out("")
  out("## Later")
  out("")
  for (i = 1; i <= later_count; i++) out("- With " later_with[i] ": " later_ids[i] ".")
}

function write_case(id, j, shown) {
  out("")
  out("### " id ": " stimulus[id])
  out("")
  out("Expected: " expected[id] ". From: " source[id] ".")
  out("")
  if (!tests[id]) {
    out("**No test.**")
    return
  }
  out("| test | observable | where it runs |")
  out("|---|---|---|")
  for (j = 1; j <= tests[id]; j++) {
    shown = test_name[id, j]
    shown = shown == "" ? "" : "`" shown "` in "
    out("| " shown "[" test_path[id, j] "](../" test_path[id, j] ") | " cell(test_observable[id, j]) " | " place_words[test_where[id, j]] " |")
  }
}
