# Reads what DumpLogSegments --deep-iteration says about segment files and judges it.
# The tool ends with 0 whatever it finds, so every line is either understood here or counts as damage.
#
#   -v expected=N   how many files must have been dumped
#
# Damage: a batch whose CRC is wrong, bytes that are no batch, offsets with a gap, a batch that does
# not hold the records it claims, an exception, a file that was not reached, a batch whose first
# sequence number does not follow its producer's last one (a record written twice, or one missing), a
# later epoch of a producer id that does not begin at sequence 0, and an epoch that falls.

function damage(what) {
  damages++
  if (damages <= 20) print "damage: " what > "/dev/stderr"
}

# The word after NAME in the line's "name: value" pairs.
function value_of(name, i) {
  for (i = 1; i < NF; i++) if ($i == name ":") return $(i + 1)
  return ""
}

function close_batch() {
  if (batch != "" && found != claimed) damage(file ": " batch " holds " found " records, not " claimed)
  batch = ""
}

/^Dumping / {
  close_batch()
  file = substr($0, 9)
  partition = file
  sub("/[^/]*$", "", partition)
  files++
  next
}

/^baseOffset: / {
  close_batch()
  batch = "the batch at offset " value_of("baseOffset")
  claimed = value_of("count")
  found = 0
  batches++
  records += claimed
  if (partition in next_offset && value_of("baseOffset") != next_offset[partition])
    damage(file ": " batch " comes after offset " next_offset[partition] - 1)
  next_offset[partition] = value_of("lastOffset") + 1
  if (value_of("isvalid") != "true") damage(file ": " batch " has a wrong CRC: " $0)
  sequence = value_of("baseSequence")
  if (value_of("producerId") >= 0 && sequence >= 0 && value_of("isControl") == "false") {
    producer = partition SUBSEP value_of("producerId") SUBSEP value_of("producerEpoch")
    if (producer in next_sequence && sequence != next_sequence[producer])
      damage(file ": " batch " starts at sequence " sequence ", expected " next_sequence[producer])
    epoch = value_of("producerEpoch") + 0
    identity = partition SUBSEP value_of("producerId")
    if (identity in last_epoch && epoch < last_epoch[identity])
      damage(file ": " batch " has epoch " epoch " of producer id " value_of("producerId") ", after epoch " last_epoch[identity])
    if (identity in last_epoch && epoch > last_epoch[identity] && sequence != 0)
      damage(file ": " batch " begins epoch " epoch " of producer id " value_of("producerId") " at sequence " sequence)
    last_epoch[identity] = epoch
    next_sequence[producer] = (value_of("lastSequence") + 1) % 2147483648
  }
  next
}

/^\| offset: / {
  found++
  next
}

# The tool begins each file at -1, so it takes the first batch of a later segment for a gap. Gaps between
# segments show above: files come in the order of their offsets.
/^Non-consecutive offsets in / {
  gap_in = $0
  sub("^Non-consecutive offsets in ", "", gap_in)
  begins_at = gap_in
  sub("^.*/", "", begins_at)
  begins_at = begins_at + 0
  next
}

/^ *-?[0-9]+ is followed by [0-9]+$/ && gap_in != "" {
  if ($1 != -1 || $5 != begins_at) damage(gap_in ": offset " $0)
  next
}

/^(Log|Snapshot) starting offset: / || /^$/ { next }
/^log4j:WARN/ || /^\[[^]]*\] WARN / || /^(OpenJDK|SLF4J|WARNING)/ { next }

{ damage((file == "" ? "" : file ": ") $0) }

END {
  close_batch()
  if (files != expected) damage("the tool dumped " files + 0 " of " expected " files")
  if (damages > 20) print "damage: and " damages - 20 " more" > "/dev/stderr"
  printf "%s files=%d batches=%d records=%d\n", damages ? "DAMAGED" : "OK", files, batches, records
  exit damages ? 1 : 0
}
