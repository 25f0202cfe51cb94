import java.io.BufferedReader;
import java.io.IOException;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayDeque;
import java.util.ArrayList;
import java.util.Comparator;
import java.util.Deque;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.SortedSet;
import java.util.TreeSet;
import java.util.zip.CRC32C;

/**
 * Compares what a producer says it wrote (its history) with what a consumer found. Knows nothing of
 * Kafka, so {@link HistoryCheckTest} can plant each kind of fault and see that it is reported.
 *
 * <h2>The history file</h2>
 *
 * UTF-8, one line a record, fields separated by one tab; lines that start with # are comments.
 *
 * <pre>
 * ord  partition  offset  timestamp_ms  keyhash  valuehash  headershash  [outcome]
 * </pre>
 *
 * <ul>
 *   <li>ord: the order of sending, a number that rises (per partition at least); each one once.
 *   <li>partition, offset: as the ack reported them; -1 where it did not say. A record without an
 *       offset is looked for by its content.
 *   <li>timestamp_ms: the record's; - for "do not compare".
 *   <li>keyhash, valuehash: CRC32C of the bytes as 8 lower-case hex digits; - for null, so an empty
 *       value is 00000000 and not the same as none.
 *   <li>headershash: CRC32C over the headers in order; of each: the key's length (4 bytes, big
 *       endian), the key in UTF-8, then one byte 0 if the value is null, else one byte 1, the value's
 *       length (4 bytes, big endian), the value. No headers: 00000000.
 *   <li>outcome: ok (the default: it is there exactly once), maybe (at most once; outcome Unknown, or
 *       Sent with acks=0), fail (not there; outcome NotWritten).
 * </ul>
 *
 * <h2>What is checked</h2>
 *
 * Each record found was sent, at most once, unchanged; each ok record is found, where its ack said,
 * with its timestamp; no fail record is found; in each partition offsets rise as ord does; and, if the
 * reader says which partition Kafka's own client gives to a key, the record lies there.
 */
final class HistoryCheck {
  /** The only part of a null's hash; no CRC32C is negative. */
  static final long NULL_HASH = -1;

  /** "Not said" for partition, offset, and the Java client's partition. */
  static final int NONE = -1;

  static final long ANY_TIMESTAMP = Long.MIN_VALUE;

  enum Outcome {
    OK,
    MAYBE,
    FAIL
  }

  /** A record's content: what two records that nobody can tell apart have in common. */
  record Content(long key, long value, long headers) {}

  /** A line of the history. */
  static final class Sent {
    final long ord;
    final int partition;
    final long offset;
    final long timestamp;
    final Content content;
    final Outcome outcome;
    private boolean matched;

    Sent(long ord, int partition, long offset, long timestamp, Content content, Outcome outcome) {
      this.ord = ord;
      this.partition = partition;
      this.offset = offset;
      this.timestamp = timestamp;
      this.content = content;
      this.outcome = outcome;
    }

    @Override
    public String toString() {
      return "record " + ord + " (" + outcome.name().toLowerCase() + ", partition " + partition + ", offset " + offset
          + ")";
    }
  }

  /** A record as a consumer read it. javaPartition: where Kafka's client puts its key, or NONE. */
  static final class Found {
    final int partition;
    final long offset;
    final long timestamp;
    final Content content;
    final int javaPartition;
    private Sent match;

    Found(int partition, long offset, long timestamp, Content content, int javaPartition) {
      this.partition = partition;
      this.offset = offset;
      this.timestamp = timestamp;
      this.content = content;
      this.javaPartition = javaPartition;
    }

    @Override
    public String toString() {
      return "partition " + partition + " offset " + offset;
    }
  }

  private record Place(int partition, long offset) {}

  private final List<Sent> history;
  private final List<String> violations = new ArrayList<>();

  private HistoryCheck(List<Sent> history) {
    this.history = history;
  }

  /** Returns the violations, each a line that begins with its kind; none when all is well. */
  static List<String> check(List<Sent> history, List<Found> found) {
    HistoryCheck check = new HistoryCheck(history);
    List<Found> inOrder = new ArrayList<>(found);
    inOrder.sort(Comparator.<Found>comparingInt(f -> f.partition).thenComparingLong(f -> f.offset));
    check.match(inOrder);
    check.placesAndTimes(inOrder);
    check.order(inOrder);
    check.absent();
    return check.violations;
  }

  private void violation(String kind, String what) {
    violations.add(kind + ": " + what);
  }

  /**
   * Gives each record found its line of the history. First by place and content together, so that of
   * records that look alike each gets its own; then what is left, by content alone.
   */
  private void match(List<Found> found) {
    Map<Place, Sent> byPlace = new HashMap<>(history.size() * 2);
    List<Sent> byOrd = new ArrayList<>(history);
    byOrd.sort(Comparator.comparingLong(s -> s.ord));
    Sent before = null;
    for (Sent sent : byOrd) {
      if (before != null && before.ord == sent.ord) violation("bad-history", "ord " + sent.ord + " stands twice");
      before = sent;
      if (sent.offset < 0) continue;
      Sent other = byPlace.put(new Place(sent.partition, sent.offset), sent);
      if (other != null) violation("same-place", other + " and " + sent + " were reported at one place");
    }
    List<Found> left = new ArrayList<>();
    for (Found one : found) {
      Sent sent = byPlace.get(new Place(one.partition, one.offset));
      if (sent != null && !sent.matched && sent.content.equals(one.content)) {
        take(one, sent);
      } else {
        left.add(one);
      }
    }
    if (left.isEmpty()) return;

    Map<Content, Sent> known = new HashMap<>();
    for (Sent sent : byOrd) known.putIfAbsent(sent.content, sent);
    Waiting waiting = new Waiting(byOrd);
    for (Found one : left) {
      Sent alike = waiting.take(one);
      Sent meant = byPlace.get(new Place(one.partition, one.offset));
      if (alike != null) {
        take(one, alike);
      } else if (known.containsKey(one.content)) {
        violation("duplicate", one + " holds once more what " + known.get(one.content) + " is");
      } else if (meant != null && !meant.matched) {
        violation("corrupt", one + " was reported for " + meant + ", but " + difference(meant.content, one.content));
        take(one, meant);
      } else {
        violation("extra", one + " was never sent");
      }
    }
  }

  private static void take(Found one, Sent sent) {
    one.match = sent;
    sent.matched = true;
  }

  /** Lines of the history that wait for a record, to be found by content: early ones first. */
  private static final class Waiting {
    private record Kind(int partition, boolean failed, Content content) {}

    private final Map<Kind, Deque<Sent>> lines = new HashMap<>();
    private final SortedSet<Integer> partitions = new TreeSet<>();

    Waiting(List<Sent> byOrd) {
      for (Sent sent : byOrd) {
        if (sent.matched) continue;
        Kind kind = new Kind(sent.partition, sent.outcome == Outcome.FAIL, sent.content);
        lines.computeIfAbsent(kind, k -> new ArrayDeque<>(1)).add(sent);
        partitions.add(sent.partition);
      }
    }

    /** Of this partition or of none rather than of another; rather a wanted one than a failed one. */
    Sent take(Found one) {
      List<Integer> near = List.of(one.partition, NONE);
      for (Iterable<Integer> places : List.of(near, partitions)) {
        for (boolean failed : new boolean[] {false, true}) {
          for (int partition : places) {
            Deque<Sent> alike = lines.get(new Kind(partition, failed, one.content));
            Sent sent = alike == null ? null : alike.poll();
            if (sent != null) return sent;
          }
        }
      }
      return null;
    }
  }

  private static String difference(Content sent, Content read) {
    List<String> what = new ArrayList<>();
    if (sent.key != read.key) what.add("the key differs");
    if (sent.value != read.value) what.add("the value differs");
    if (sent.headers != read.headers) what.add("the headers differ");
    return String.join(", ", what);
  }

  private void placesAndTimes(List<Found> found) {
    for (Found one : found) {
      if (one.javaPartition != NONE && one.javaPartition != one.partition) {
        violation("wrong-key-partition", one + ": Kafka's client puts this key on partition " + one.javaPartition);
      }
      Sent sent = one.match;
      if (sent == null) continue;
      if (sent.outcome == Outcome.FAIL) violation("failed-but-written", sent + " is at " + one);
      if (sent.partition != NONE && sent.partition != one.partition) {
        violation("wrong-partition", sent + " is at " + one);
      } else if (sent.offset >= 0 && sent.offset != one.offset) {
        violation("wrong-offset", sent + " is at " + one);
      }
      if (sent.timestamp != ANY_TIMESTAMP && sent.timestamp != one.timestamp) {
        violation("wrong-timestamp", sent + " was sent with " + sent.timestamp + ", " + one + " has " + one.timestamp);
      }
    }
  }

  private void order(List<Found> found) {
    Found before = null;
    for (Found one : found) {
      if (before != null && before.partition != one.partition) before = null;
      if (before != null && before.offset == one.offset) violation("bad-read", one + " was read twice");
      // What was sent to another partition is reported already, and stands in no order here.
      if (one.match == null || (one.match.partition != NONE && one.match.partition != one.partition)) continue;
      if (before != null && before.match.ord > one.match.ord) {
        violation("reordered", one.match + " at " + one + " comes after " + before.match + " at " + before);
      }
      before = one;
    }
  }

  private void absent() {
    for (Sent sent : history) {
      if (!sent.matched && sent.outcome == Outcome.OK) violation("missing", sent + " is nowhere");
    }
  }

  // ---- hashes and the file ----------------------------------------------------------------------

  static long hash(byte[] bytes) {
    if (bytes == null) return NULL_HASH;
    CRC32C crc = new CRC32C();
    crc.update(bytes, 0, bytes.length);
    return crc.getValue();
  }

  /** Feeds headers in order; see the class's text for the bytes. */
  static final class HeadersHash {
    private final CRC32C crc = new CRC32C();

    HeadersHash add(String key, byte[] value) {
      lengthAndBytes(key.getBytes(StandardCharsets.UTF_8));
      crc.update(value == null ? 0 : 1);
      if (value != null) lengthAndBytes(value);
      return this;
    }

    private void lengthAndBytes(byte[] bytes) {
      for (int shift = 24; shift >= 0; shift -= 8) crc.update(bytes.length >>> shift);
      crc.update(bytes, 0, bytes.length);
    }

    long value() {
      return crc.getValue();
    }
  }

  static String hashText(long hash) {
    return hash == NULL_HASH ? "-" : String.format("%08x", hash);
  }

  static String line(Sent sent) {
    return String.join("\t", Long.toString(sent.ord), Integer.toString(sent.partition), Long.toString(sent.offset),
        sent.timestamp == ANY_TIMESTAMP ? "-" : Long.toString(sent.timestamp), hashText(sent.content.key),
        hashText(sent.content.value), hashText(sent.content.headers), sent.outcome.name().toLowerCase());
  }

  static List<Sent> read(Path file) throws IOException {
    List<Sent> history = new ArrayList<>();
    try (BufferedReader lines = Files.newBufferedReader(file)) {
      int number = 0;
      for (String line = lines.readLine(); line != null; line = lines.readLine()) {
        number++;
        if (line.isEmpty() || line.startsWith("#")) continue;
        try {
          history.add(parse(line));
        } catch (IllegalArgumentException e) {
          throw new IOException(file + " line " + number + ": " + e.getMessage() + ": " + line);
        }
      }
    }
    return history;
  }

  static Sent parse(String line) {
    String[] field = line.split("\t", -1);
    if (field.length != 7 && field.length != 8) throw new IllegalArgumentException("7 or 8 fields are wanted");
    long timestamp = field[3].equals("-") ? ANY_TIMESTAMP : Long.parseLong(field[3]);
    Content content = new Content(parseHash(field[4]), parseHash(field[5]), parseHash(field[6]));
    Outcome outcome = field.length == 7 ? Outcome.OK : switch (field[7]) {
      case "ok" -> Outcome.OK;
      case "maybe" -> Outcome.MAYBE;
      case "fail" -> Outcome.FAIL;
      default -> throw new IllegalArgumentException("the outcome is ok, maybe or fail");
    };
    return new Sent(Long.parseLong(field[0]), Integer.parseInt(field[1]), Long.parseLong(field[2]), timestamp, content,
        outcome);
  }

  private static long parseHash(String text) {
    if (text.equals("-")) return NULL_HASH;
    if (text.length() != 8) throw new IllegalArgumentException("a hash is - or 8 hex digits");
    return Long.parseLong(text, 16);
  }
}
