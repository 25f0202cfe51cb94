import java.io.IOException;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import java.util.Set;
import java.util.TreeSet;
import java.util.function.Consumer;

/** Is the checker awake? A clean run must pass, and one planted fault of each kind must be named. */
final class HistoryCheckTest {
  private static final int PARTITIONS = 3;
  private static final int RECORDS = 60;
  private static int passed;
  private static int failed;

  /** A clean run, to be spoiled: record i on partition i % 3, every content its own. */
  private static final class Run {
    final List<HistoryCheck.Sent> sent = new ArrayList<>();
    final List<HistoryCheck.Found> found = new ArrayList<>();

    Run() {
      for (int i = 0; i < RECORDS; i++) {
        sent.add(sent(i, i % PARTITIONS, i / PARTITIONS, HistoryCheck.Outcome.OK, content(i)));
        found.add(found(i % PARTITIONS, i / PARTITIONS, i, content(i)));
      }
    }
  }

  private static HistoryCheck.Content content(int i) {
    return new HistoryCheck.Content(i % 2 == 0 ? HistoryCheck.NULL_HASH : 7 * i, 1000 + i, 0);
  }

  private static HistoryCheck.Sent sent(
      int ord, int partition, long offset, HistoryCheck.Outcome outcome, HistoryCheck.Content content) {
    return new HistoryCheck.Sent(ord, partition, offset, 5000 + ord, content, outcome);
  }

  private static HistoryCheck.Found found(int partition, long offset, int i, HistoryCheck.Content content) {
    return new HistoryCheck.Found(partition, offset, 5000 + i, content, i % 2 == 0 ? HistoryCheck.NONE : partition);
  }

  private static void expect(String name, boolean good, Object detail) {
    if (good) {
      passed++;
    } else {
      failed++;
      System.out.println("FAILED " + name + ": " + detail);
    }
  }

  /** Spoils a clean run; the kinds of violations reported must be exactly these. */
  private static void planted(String name, Consumer<Run> spoil, String... kinds) {
    Run run = new Run();
    spoil.accept(run);
    List<String> violations = HistoryCheck.check(run.sent, run.found);
    Set<String> got = new TreeSet<>();
    for (String violation : violations) got.add(violation.substring(0, violation.indexOf(':')));
    expect(name, got.equals(new TreeSet<>(List.of(kinds))), violations);
  }

  public static void main(String[] args) throws IOException {
    planted("clean", run -> {});
    planted("missing", run -> run.found.remove(17), "missing");
    planted("missing at the end", run -> run.found.remove(RECORDS - 1), "missing");
    planted("everything missing", run -> run.found.clear(), "missing");
    planted("duplicate", run -> run.found.add(found(1, 20, 4, content(4))), "duplicate");
    planted("extra", run -> run.found.add(found(1, 20, 4, content(777))), "extra");
    planted("wrong offset", run -> run.sent.set(9, sent(9, 0, 44, HistoryCheck.Outcome.OK, content(9))), "wrong-offset");
    planted("two records reported at one place",
        run -> run.sent.set(9, sent(9, 0, 4, HistoryCheck.Outcome.OK, content(9))), "same-place", "wrong-offset");
    planted("ord twice", run -> run.sent.set(9, new HistoryCheck.Sent(12, 0, 3, 5009, content(9), HistoryCheck.Outcome.OK)),
        "bad-history");
    planted("corrupt value",
        run -> run.found.set(9, found(0, 3, 9, new HistoryCheck.Content(63, 1, 0))), "corrupt");
    planted("corrupt key", run -> run.found.set(9, found(0, 3, 9, new HistoryCheck.Content(62, 1009, 0))), "corrupt");
    planted("null value for an empty one",
        run -> {
          run.sent.set(9, sent(9, 0, 3, HistoryCheck.Outcome.OK, new HistoryCheck.Content(63, 0, 0)));
          run.found.set(9, found(0, 3, 9, new HistoryCheck.Content(63, HistoryCheck.NULL_HASH, 0)));
        }, "corrupt");
    planted("lost headers",
        run -> run.sent.set(9, sent(9, 0, 3, HistoryCheck.Outcome.OK, new HistoryCheck.Content(63, 1009, 5))), "corrupt");
    planted("wrong timestamp",
        run -> run.found.set(9, new HistoryCheck.Found(0, 3, 1, content(9), 0)), "wrong-timestamp");
    planted("timestamp not compared",
        run -> run.sent.set(9, new HistoryCheck.Sent(9, 0, 3, HistoryCheck.ANY_TIMESTAMP, content(9), HistoryCheck.Outcome.OK)));
    planted("wrong partition",
        run -> {
          run.found.remove(RECORDS - 2); // the last of partition 1, found at the end of partition 2
          run.found.add(found(2, 20, RECORDS - 2, content(RECORDS - 2)));
        }, "wrong-partition");
    planted("not the Java client's partition",
        run -> run.found.set(9, new HistoryCheck.Found(0, 3, 5009, content(9), 2)), "wrong-key-partition");
    planted("reordered, offsets reported as they are",
        run -> swap(run, 9, 12, true), "reordered");
    planted("reordered, offsets unknown",
        run -> {
          swap(run, 9, 12, false);
          run.sent.set(9, sent(9, 0, -1, HistoryCheck.Outcome.OK, content(9)));
          run.sent.set(12, sent(12, 0, -1, HistoryCheck.Outcome.OK, content(12)));
        }, "reordered");
    planted("swapped, reported as sent", run -> swap(run, 9, 12, false), "reordered", "wrong-offset");
    planted("offset unknown", run -> run.sent.set(9, sent(9, 0, -1, HistoryCheck.Outcome.OK, content(9))));
    planted("partition unknown as well", run -> run.sent.set(9, sent(9, -1, -1, HistoryCheck.Outcome.OK, content(9))));
    planted("offset unknown and missing",
        run -> {
          run.sent.set(9, sent(9, 0, -1, HistoryCheck.Outcome.OK, content(9)));
          run.found.remove(9);
        }, "missing");
    planted("alike records, each with its own place",
        run -> {
          for (int i : new int[] {9, 12, 15}) {
            run.sent.set(i, sent(i, 0, i == 9 ? -1 : i / 3, HistoryCheck.Outcome.OK, content(9)));
            run.found.set(i, found(0, i / 3, i, content(9)));
          }
        });
    planted("one of two alike is missing",
        run -> {
          run.sent.set(12, sent(12, 0, 4, HistoryCheck.Outcome.OK, content(9)));
          run.found.remove(12);
        }, "missing");
    planted("maybe, written", run -> run.sent.set(9, sent(9, 0, -1, HistoryCheck.Outcome.MAYBE, content(9))));
    planted("maybe, not written",
        run -> {
          run.sent.set(9, sent(9, 0, -1, HistoryCheck.Outcome.MAYBE, content(9)));
          run.found.remove(9);
        });
    planted("maybe, written twice",
        run -> {
          run.sent.set(9, sent(9, 0, -1, HistoryCheck.Outcome.MAYBE, content(9)));
          run.found.add(found(0, 20, 9, content(9)));
        }, "duplicate");
    planted("failed, not written",
        run -> {
          run.sent.set(9, sent(9, 0, -1, HistoryCheck.Outcome.FAIL, content(9)));
          run.found.remove(9);
        });
    planted("failed, but written",
        run -> run.sent.set(9, sent(9, 0, -1, HistoryCheck.Outcome.FAIL, content(9))), "failed-but-written");
    planted("read twice", run -> run.found.add(found(0, 3, 9, content(9))), "bad-read", "duplicate");
    file();
    hashes();
    System.out.printf("%s history check: %d passed, %d failed%n", failed == 0 ? "OK" : "FAILED", passed, failed);
    System.exit(failed == 0 ? 0 : 1);
  }

  /** Records a and b of one partition change places in the log, and in their acks if told so. */
  private static void swap(Run run, int a, int b, boolean reported) {
    run.found.set(a, found(0, a / PARTITIONS, b, content(b)));
    run.found.set(b, found(0, b / PARTITIONS, a, content(a)));
    if (!reported) return;
    run.sent.set(a, sent(a, 0, b / PARTITIONS, HistoryCheck.Outcome.OK, content(a)));
    run.sent.set(b, sent(b, 0, a / PARTITIONS, HistoryCheck.Outcome.OK, content(b)));
  }

  private static void file() throws IOException {
    Path file = Files.createTempFile("history", ".tsv");
    try {
      String good = "# a comment\n0\t1\t2\t-3\t-\t00000000\t0a0b0c0d\n1\t-1\t-1\t-\tffffffff\t-\t00000000\tmaybe\n";
      Files.writeString(file, good);
      List<HistoryCheck.Sent> lines = HistoryCheck.read(file);
      expect("file", HistoryCheck.line(lines.get(0)).equals("0\t1\t2\t-3\t-\t00000000\t0a0b0c0d\tok")
          && HistoryCheck.line(lines.get(1)).equals("1\t-1\t-1\t-\tffffffff\t-\t00000000\tmaybe"), lines);
      for (String bad : new String[] {"0\t1", "0\t1\t2\t3\t-\t0\t00000000", "0\t1\t2\t3\t-\t-\t-\tlost", "x\t1\t2\t3\t-\t-\t-"}) {
        Files.writeString(file, good + bad + "\n");
        String message = "accepted";
        try {
          HistoryCheck.read(file);
        } catch (IOException e) {
          message = e.getMessage();
        }
        expect("bad line", message.contains(" line 4: "), bad + " → " + message);
      }
    } finally {
      Files.delete(file);
    }
  }

  private static void hashes() {
    byte[] digits = "123456789".getBytes(StandardCharsets.UTF_8);
    expect("CRC32C's check value", HistoryCheck.hashText(HistoryCheck.hash(digits)).equals("e3069283"), "");
    expect("null and empty", HistoryCheck.hashText(HistoryCheck.hash(null)).equals("-")
        && HistoryCheck.hashText(HistoryCheck.hash(new byte[0])).equals("00000000"), "");
    Set<Long> different = new TreeSet<>();
    different.add(headers());
    different.add(headers("a", null));
    different.add(headers("a", ""));
    different.add(headers("a", "\1"));
    different.add(headers("a", "b", "c", "d"));
    different.add(headers("c", "d", "a", "b"));
    different.add(headers("a", "b", "a", "b"));
    different.add(headers("", "ab"));
    expect("headers that differ hash differently", different.size() == 8, different);
    // The bytes spelled out, for whoever writes the same in another language.
    byte[] spelled = {0, 0, 0, 1, 'a', 1, 0, 0, 0, 2, 'x', 'y', 0, 0, 0, 1, 'b', 0};
    expect("the bytes of headers", headers("a", "xy", "b", null) == HistoryCheck.hash(spelled), "");
  }

  private static long headers(String... keysAndValues) {
    HistoryCheck.HeadersHash hash = new HistoryCheck.HeadersHash();
    for (int i = 0; i < keysAndValues.length; i += 2) {
      String value = keysAndValues[i + 1];
      hash.add(keysAndValues[i], value == null ? null : value.getBytes(StandardCharsets.UTF_8));
    }
    return hash.value();
  }
}
