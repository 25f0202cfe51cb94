import java.nio.ByteBuffer;
import java.nio.charset.StandardCharsets;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.BitSet;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.SortedMap;
import java.util.TreeMap;
import java.util.zip.CRC32;

/**
 * Compares the histories of a chaos run with what was read back. Knows nothing of Kafka, so {@link
 * ChaosCheckTest} can plant each kind of anomaly and see that it is named.
 *
 * <p>Events and payloads are those of {@code bench-harness/chaos/src/history.rs} and {@code payload.rs}.
 * First every {@link #event}, then each pass over the topic: {@link #begin}, {@link #found} per partition
 * in the order of offsets, {@link #end}; at last {@link #finish}. A record takes 9 bytes here (13 with
 * transactions), so that tens of millions fit into a gigabyte.
 *
 * <h2>Kinds of violations</h2>
 *
 * <pre>
 * lost                an ok record was not read                                             check 1, 6
 * wrong-offset        it lies elsewhere than its ack said                                   check 1
 * never-invoked       a record of this run that nobody handed over                          check 2
 * foreign             a record of another run, or none of ours at all                       check 2
 * failed-but-written  a record reported as certainly not written                            check 3
 * duplicate           a record twice in a pass                                              check 4
 * reordered           a counter that does not rise, within producer and stream              check 5
 * gap                 a record that was never given an outcome and is missing before one    check 6
 *                     that was read
 * corrupt             the payload's CRC is wrong                                            check 7
 * wrong-topic, wrong-partition   the payload belongs elsewhere                              check 7
 * wrong-key           the key is not where Kafka's own client puts it                       check 7
 * lost-commit, aborted-read, torn, uncommitted-read                                         check 8
 * no-outcome          a record without outcome, though its producer was closed              check 9
 * two-outcomes        a record with more than one                                           check 9
 * bad-history         an outcome nobody invoked, a counter left out, one invoked twice      check 9
 * slow-recovery       a role that is not done, and a partition of it without an ok for too long after  check 10
 *                     a heal; for records that may go anywhere: without any ok
 * unexplained-unknown, unexplained-fail   no fault was near while the record was out
 * too-many-unknown    more maybe outcomes of a producer than records of it were out during faults
 * harmed              a fail or maybe of a role whose deadline has room for every fault
 * bad-read            the reader's offsets did not rise
 * </pre>
 */
final class ChaosCheck {
  static final int EVENT_BYTES = 40;
  static final int HEADER_BYTES = 16;
  static final byte[] HISTORY_MAGIC = "RPHIST01".getBytes(StandardCharsets.US_ASCII);
  private static final int PAYLOAD_MAGIC = 0x52504348; // RPCH
  private static final int PAYLOAD_TOPIC_AT = 42;
  private static final int KEPT_PER_KIND = 10;

  /** Passes over the topic. */
  enum Pass {
    READ_UNCOMMITTED,
    READ_COMMITTED
  }

  // What is known of a record: bits.
  private static final int INVOKED = 1;
  private static final int OK = 2;
  private static final int FAIL = 4;
  private static final int MAYBE = 8;
  private static final int FOUND = 16; // in this pass
  private static final int OUTCOMES = OK | FAIL | MAYBE;

  /** Records of one producer and stream, by counter. Chunks, so that growing copies nothing. */
  private static final class Stream {
    private static final int CHUNK = 1 << 14;
    private final List<byte[]> bits = new ArrayList<>();
    private final List<long[]> places = new ArrayList<>();
    private final List<int[]> transactions = new ArrayList<>();
    private boolean transactional;
    private long count;
    private long lastFound;

    boolean has(long counter) {
      return counter >= 0 && counter < count;
    }

    void growTo(long counter) {
      while (bits.size() <= counter / CHUNK) {
        bits.add(new byte[CHUNK]);
        places.add(new long[CHUNK]);
        if (transactional) transactions.add(new int[CHUNK]);
      }
      count = Math.max(count, counter + 1);
    }

    int bits(long counter) {
      return bits.get((int) (counter / CHUNK))[(int) (counter % CHUNK)];
    }

    void set(long counter, int more) {
      bits.get((int) (counter / CHUNK))[(int) (counter % CHUNK)] |= (byte) more;
    }

    void clear(int less) {
      for (byte[] chunk : bits) for (int i = 0; i < CHUNK; i++) chunk[i] &= (byte) ~less;
    }

    /** Partition and offset in one number; the offset's bits are all set where the ack did not say. */
    long place(long counter) {
      return places.get((int) (counter / CHUNK))[(int) (counter % CHUNK)];
    }

    void place(long counter, long place) {
      places.get((int) (counter / CHUNK))[(int) (counter % CHUNK)] = place;
    }

    int transaction(long counter) {
      return transactional ? transactions.get((int) (counter / CHUNK))[(int) (counter % CHUNK)] : 0;
    }

    void transaction(long counter, int transaction) {
      if (!transactional) {
        transactional = true;
        for (int i = 0; i < bits.size(); i++) transactions.add(new int[CHUNK]);
      }
      transactions.get((int) (counter / CHUNK))[(int) (counter % CHUNK)] = transaction;
    }
  }

  private static final int OFFSET_BITS = 48;
  private static final long NO_OFFSET = (1L << OFFSET_BITS) - 1;

  private static long place(int partition, long offset) {
    return (long) partition << OFFSET_BITS | (offset < 0 ? NO_OFFSET : offset);
  }

  /** A producer process. */
  private static final class Producer {
    final TreeMap<Integer, Stream> streams = new TreeMap<>();
    /** Outcome of transactions: C, A or U. */
    final Map<Integer, Character> transactions = new HashMap<>();
    boolean started;
    boolean ended;
    long invoked;
    long ok;
    long fail;
    long maybe;
    long okWithoutOffset;
    long firstInvoked = Long.MAX_VALUE;
    long endedAt = Long.MAX_VALUE;
    /** Records without an outcome, as events come. */
    long out;
    /** By fault: the most that were out while it lasted. */
    long[] peaks = {};
    /** Faults that had begun at the newest event. */
    int begun;

    long explained() {
      return Arrays.stream(peaks).sum();
    }
  }

  /** A fault, from its begin until nothing of it can be left in flight. */
  record Fault(long from, long until) {}

  /** How a transaction's records were read in a pass. */
  private static final class Torn {
    long present;
    long absent;
  }

  /** A moment after which every partition must get an ok again. */
  private static final class Heal {
    final long stamp;
    final String words;
    final long until;
    final Map<Integer, long[]> firstOk = new TreeMap<>();

    Heal(long stamp, String words, long until) {
      this.stamp = stamp;
      this.words = words;
      this.until = until;
    }
  }

  private final long run;
  private final String topic;
  private final int partitions;
  private final SortedMap<Integer, Producer> producers = new TreeMap<>();
  /** Partitions that a role's records went to. */
  private final Map<Integer, BitSet> used = new HashMap<>();
  /** Roles whose records may go anywhere. */
  private final BitSet free = new BitSet();
  /** Roles that no fault may harm. */
  private final BitSet patient = new BitSet();
  /** In the order of their begins; null: not known, so nothing can be said of unknown outcomes. */
  private List<Fault> faults;
  private final List<Heal> heals = new ArrayList<>();
  private final Map<String, List<String>> violations = new TreeMap<>();
  private final Map<String, Long> violationCounts = new TreeMap<>();
  private long[] stampsOfHeals = {};
  private int currentPartition = -1;
  private long currentOffset = -1;
  private Pass pass;
  private final long[] read = new long[Pass.values().length];

  ChaosCheck(long run, String topic, int partitions) {
    this.run = run;
    this.topic = topic;
    this.partitions = partitions;
  }

  private void violation(String kind, String what) {
    violationCounts.merge(kind, 1L, Long::sum);
    List<String> kept = violations.computeIfAbsent(kind, k -> new ArrayList<>());
    if (kept.size() < KEPT_PER_KIND) kept.add(what);
  }

  private static String name(int producer, int stream, long counter) {
    return "record " + counter + " of producer " + producer + ", stream " + stream;
  }

  // ---- the history ------------------------------------------------------------------------------

  /** Heals have to be known before the events. until: when the next fault begins. */
  void heal(long stamp, String words, long until) {
    heals.add(new Heal(stamp, words, until));
    heals.sort((a, b) -> Long.compare(a.stamp, b.stamp));
    stampsOfHeals = heals.stream().mapToLong(heal -> heal.stamp).toArray();
  }

  /** They have to be known before the events. Without any, no record may fail or be unknown. */
  void faults(List<Fault> all) {
    faults = all.stream().sorted((a, b) -> Long.compare(a.from, b.from)).toList();
  }

  /** No fault may harm a record of this role. */
  void patient(int role) {
    patient.set(role);
  }

  /** Producers of one role follow one another (a killed one's successor): numbers of one thousand. */
  private static int role(int producer) {
    return producer / 1000;
  }

  void event(char kind, int producer, int stream, int partition, long counter, long value, long stamp) {
    Producer of = producers.computeIfAbsent(producer, p -> new Producer());
    switch (kind) {
      case 'S' -> {
        if (of.started) violation("bad-history", "producer " + producer + " started twice");
        of.started = true;
      }
      case 'E' -> {
        of.ended = true;
        of.endedAt = stamp;
      }
      case 'C', 'A', 'U' -> of.transactions.put((int) counter, kind);
      case 'I' -> invoked(of, producer, stream, partition, counter, value, stamp);
      case 'O', 'F', 'M' -> outcome(kind, of, producer, stream, partition, counter, value, stamp);
      default -> violation("bad-history", "no kind of event is " + (int) kind);
    }
  }

  private void invoked(
      Producer of, int producer, int stream, int partition, long counter, long transaction, long stamp) {
    Stream in = of.streams.computeIfAbsent(stream, s -> new Stream());
    if (counter != in.count) {
      violation("bad-history", name(producer, stream, counter) + " was invoked after " + (in.count - 1));
      if (counter < in.count || counter > in.count + (1 << 20)) return;
    }
    in.growTo(counter);
    in.set(counter, INVOKED);
    // Until it has an outcome: when it was handed over, in microseconds.
    in.place(counter, place(partition & 0x7fff, stamp / 1000));
    if (transaction != 0) in.transaction(counter, (int) transaction);
    of.invoked++;
    of.firstInvoked = Math.min(of.firstInvoked, stamp);
    out(of, stamp, 1);
    if (partition >= 0) used.computeIfAbsent(role(producer), r -> new BitSet()).set(partition);
    else free.set(role(producer));
  }

  /** So many more, or less, are out. */
  private void out(Producer of, long stamp, int change) {
    if (faults == null) return;
    if (of.peaks.length < faults.size()) of.peaks = new long[faults.size()];
    while (of.begun < faults.size() && faults.get(of.begun).from <= stamp) of.peaks[of.begun++] = of.out;
    of.out += change;
    for (int at = of.begun - 1; at >= 0 && faults.get(at).until >= stamp; at--) {
      of.peaks[at] = Math.max(of.peaks[at], of.out);
    }
  }

  /** A record without a certain end has to have been out during a fault, and to belong to a role that may be harmed. */
  private void unsettled(String kind, int producer, int stream, long counter, long invoked, long stamp) {
    if (patient.get(role(producer))) violation("harmed", name(producer, stream, counter) + " is " + kind);
    if (faults == null || faults.stream().anyMatch(fault -> fault.from <= stamp && fault.until >= invoked)) return;
    violation("unexplained-" + kind, name(producer, stream, counter) + " was out for " + (stamp - invoked) / 1_000_000
        + " ms, and no fault was near");
  }

  private void outcome(
      char kind, Producer of, int producer, int stream, int partition, long counter, long offset, long stamp) {
    Stream in = of.streams.get(stream);
    if (in == null || !in.has(counter) || (in.bits(counter) & INVOKED) == 0) {
      violation("bad-history", name(producer, stream, counter) + " has an outcome and was never invoked");
      return;
    }
    if ((in.bits(counter) & OUTCOMES) != 0) {
      violation("two-outcomes", name(producer, stream, counter) + " got a second one: " + kind);
    }
    boolean first = (in.bits(counter) & OUTCOMES) == 0;
    long invoked = (in.place(counter) & NO_OFFSET) * 1000;
    if (first) out(of, stamp, -1);
    switch (kind) {
      case 'O' -> {
        in.set(counter, OK);
        in.place(counter, place(partition, offset));
        of.ok++;
        if (offset < 0) of.okWithoutOffset++;
        if (partition >= 0) used.computeIfAbsent(role(producer), r -> new BitSet()).set(partition);
        Heal heal = healBefore(stamp);
        if (heal != null && partition >= 0 && partition < partitions) {
          long[] stamps = heal.firstOk.computeIfAbsent(role(producer), r -> unset());
          stamps[partition] = Math.min(stamps[partition], stamp);
        }
      }
      case 'F' -> {
        in.set(counter, FAIL);
        of.fail++;
        if (first) unsettled("fail", producer, stream, counter, invoked, stamp);
      }
      default -> {
        in.set(counter, MAYBE);
        of.maybe++;
        if (first) unsettled("unknown", producer, stream, counter, invoked, stamp);
      }
    }
  }

  private long[] unset() {
    long[] stamps = new long[partitions];
    Arrays.fill(stamps, Long.MAX_VALUE);
    return stamps;
  }

  private Heal healBefore(long stamp) {
    int at = Arrays.binarySearch(stampsOfHeals, stamp);
    if (at < 0) at = -at - 2;
    return at < 0 ? null : heals.get(at);
  }

  // ---- what was read ----------------------------------------------------------------------------

  void begin(Pass pass) {
    this.pass = pass;
    currentPartition = -1;
    for (Producer producer : producers.values()) {
      for (Stream stream : producer.streams.values()) {
        stream.clear(FOUND);
        stream.lastFound = -1;
      }
    }
  }

  /** javaPartition: where Kafka's own client puts the record's key; -1 for a record without key. */
  void found(int partition, long offset, byte[] value, int javaPartition) {
    String at = pass + " partition " + partition + " offset " + offset;
    read[pass.ordinal()]++;
    if (partition == currentPartition && offset <= currentOffset) {
      violation("bad-read", at + " came after offset " + currentOffset);
    }
    currentPartition = partition;
    currentOffset = offset;
    if (value == null || value.length < PAYLOAD_TOPIC_AT + 4) {
      violation("foreign", at + " is none of ours");
      return;
    }
    ByteBuffer bytes = ByteBuffer.wrap(value);
    CRC32 crc = new CRC32();
    crc.update(value, 0, value.length - 4);
    if ((int) crc.getValue() != bytes.getInt(value.length - 4)) {
      violation("corrupt", at);
      return;
    }
    if (bytes.getInt() != PAYLOAD_MAGIC || bytes.getLong() != run) {
      violation("foreign", at + " is of another run");
      return;
    }
    int producer = bytes.getInt();
    int stream = bytes.getInt();
    int meant = bytes.getInt();
    long counter = bytes.getLong();
    long transaction = bytes.getLong();
    int topicBytes = bytes.getShort() & 0xffff;
    String name = name(producer, stream, counter);
    if (topicBytes > value.length - PAYLOAD_TOPIC_AT - 4
        || !topic.equals(new String(value, PAYLOAD_TOPIC_AT, topicBytes, StandardCharsets.UTF_8))) {
      violation("wrong-topic", at + " holds " + name + " of another topic");
      return;
    }
    if (meant >= 0 && meant != partition) {
      violation("wrong-partition", at + " holds " + name + " of partition " + meant);
      return;
    }
    if (javaPartition >= 0 && javaPartition != partition) {
      violation("wrong-key", at + " holds " + name + ", whose key belongs to partition " + javaPartition);
    }
    Producer of = producers.get(producer);
    Stream in = of == null ? null : of.streams.get(stream);
    if (in == null || !in.has(counter) || (in.bits(counter) & INVOKED) == 0) {
      violation("never-invoked", at + " holds " + name);
      return;
    }
    int bits = in.bits(counter);
    if ((bits & FOUND) != 0) {
      violation("duplicate", at + " holds once more " + name);
      return;
    }
    in.set(counter, FOUND);
    if ((bits & FAIL) != 0) violation("failed-but-written", at + " holds " + name);
    if ((bits & OK) != 0) {
      long place = in.place(counter);
      long acked = place & NO_OFFSET;
      if ((int) (place >> OFFSET_BITS) != partition || (acked != NO_OFFSET && acked != offset)) {
        violation("wrong-offset", at + " holds " + name + ", acked at partition " + (place >> OFFSET_BITS) + " offset "
            + (acked == NO_OFFSET ? "?" : Long.toString(acked)));
      }
    }
    if (meant >= 0) { // without a place or a key of its own, a record stands in no order
      if (counter < in.lastFound) violation("reordered", at + " holds " + name + " after " + in.lastFound);
      in.lastFound = Math.max(in.lastFound, counter);
    }
    if (pass == Pass.READ_COMMITTED && transaction != 0) {
      Character fate = of.transactions.get((int) transaction);
      if (fate == null) {
        violation("uncommitted-read", at + " holds " + name + " of transaction " + transaction + ", never ended");
      } else if (fate == 'A') {
        violation("aborted-read", at + " holds " + name + " of transaction " + transaction);
      }
    }
  }

  /** The pass is over: what has not come is missing. */
  void end() {
    for (Map.Entry<Integer, Producer> entry : producers.entrySet()) {
      Map<Integer, Torn> unknown = new TreeMap<>();
      for (Map.Entry<Integer, Stream> stream : entry.getValue().streams.entrySet()) {
        absent(entry.getKey(), entry.getValue(), stream.getKey(), stream.getValue(), unknown);
      }
      unknown.forEach((transaction, torn) -> {
        if (torn.present > 0 && torn.absent > 0) {
          violation("torn", pass + " holds " + torn.present + " records of transaction " + transaction + " of producer "
              + entry.getKey() + " and lacks " + torn.absent);
        }
      });
    }
  }

  private void absent(int producer, Producer of, int number, Stream stream, Map<Integer, Torn> unknown) {
    for (long counter = 0; counter < stream.count; counter++) {
      int bits = stream.bits(counter);
      boolean found = (bits & FOUND) != 0;
      int transaction = pass == Pass.READ_COMMITTED ? stream.transaction(counter) : 0;
      Character fate = transaction == 0 ? null : of.transactions.get(transaction);
      if (transaction != 0 && (bits & OK) != 0 && fate != null && fate == 'U') {
        Torn torn = unknown.computeIfAbsent(transaction, t -> new Torn());
        if (found) torn.present++;
        else torn.absent++;
        continue;
      }
      if (found || (bits & INVOKED) == 0) continue;
      if ((bits & OK) != 0) {
        if (transaction == 0) {
          violation("lost", pass + " lacks " + name(producer, number, counter) + ", acked at partition "
              + (stream.place(counter) >> OFFSET_BITS) + " offset " + (stream.place(counter) & NO_OFFSET));
        } else if (fate != null && fate == 'C') {
          violation("lost-commit", pass + " lacks " + name(producer, number, counter) + " of transaction " + transaction);
        }
      } else if ((bits & OUTCOMES) == 0 && of.ended && counter < stream.lastFound) {
        violation("gap", pass + " lacks " + name(producer, number, counter) + ", and nobody was told");
      }
    }
  }

  // ---- the verdict ------------------------------------------------------------------------------

  /** What a run comes to. */
  record Summary(long invoked, long ok, long fail, long maybe, long cutOff, long okWithoutOffset, long read) {}

  /** cutOff: records without outcome of a producer that was killed; they may be written. */
  Summary summary() {
    long invoked = 0, ok = 0, fail = 0, maybe = 0, cutOff = 0, withoutOffset = 0;
    for (Producer producer : producers.values()) {
      invoked += producer.invoked;
      ok += producer.ok;
      fail += producer.fail;
      maybe += producer.maybe;
      withoutOffset += producer.okWithoutOffset;
      if (!producer.ended) cutOff += producer.invoked - producer.ok - producer.fail - producer.maybe;
    }
    return new Summary(invoked, ok, fail, maybe, cutOff, withoutOffset, read[0]);
  }

  /** One line per producer. */
  List<String> perProducer() {
    List<String> lines = new ArrayList<>();
    producers.forEach((number, of) -> lines.add(String.format(
        "producer %d: invoked %d, ok %d, fail %d, maybe %d%s%s", number, of.invoked, of.ok, of.fail, of.maybe,
        faults == null ? "" : " (" + of.explained() + " were out during faults)",
        of.ended ? "" : ", killed with " + (of.invoked - of.ok - of.fail - of.maybe) + " out")));
    return lines;
  }

  /** The most unknown outcomes that faults explain; -1: faults are not known. */
  long unknownMax() {
    return faults == null ? -1 : producers.values().stream().mapToLong(Producer::explained).sum();
  }

  /**
   * Roles that want to write at a heal: they did so before and are not closed within the bound. One that hands nothing
   * over any more, as its window is full, counts too; one that was killed and has no successor never ends.
   */
  private BitSet wanting(Heal heal, long boundMs) {
    Map<Integer, Long> since = new HashMap<>();
    Map<Integer, Long> ends = new HashMap<>();
    producers.forEach((number, of) -> { // a role's last producer comes last
      since.merge(role(number), of.firstInvoked, Math::min);
      ends.put(role(number), of.endedAt);
    });
    BitSet wanting = new BitSet();
    since.forEach((role, first) -> {
      if (first <= heal.stamp && ends.get(role) > Math.min(heal.until, heal.stamp + boundMs * 1_000_000)) wanting.set(role);
    });
    return wanting;
  }

  /** One line per heal: how long until every partition that a role writes to had an ok again. */
  List<String> recoveries(long boundMs) {
    // An ok after a later heal is also one after this.
    List<String> lines = new ArrayList<>();
    for (int i = heals.size() - 2; i >= 0; i--) {
      Heal later = heals.get(i + 1);
      for (Map.Entry<Integer, long[]> entry : later.firstOk.entrySet()) {
        long[] mine = heals.get(i).firstOk.computeIfAbsent(entry.getKey(), r -> unset());
        for (int p = 0; p < partitions; p++) mine[p] = Math.min(mine[p], entry.getValue()[p]);
      }
    }
    for (Heal heal : heals) {
      long worst = -1;
      String where = "nobody was sending";
      BitSet wanting = wanting(heal, boundMs);
      for (int role = wanting.nextSetBit(0); role >= 0; role = wanting.nextSetBit(role + 1)) {
        long[] first = heal.firstOk.getOrDefault(role, unset());
        // Where records may go anywhere, a broker is avoided for a while after it is well.
        if (free.get(role)) Arrays.fill(first, Arrays.stream(first).min().orElse(Long.MAX_VALUE));
        BitSet of = used.getOrDefault(role, new BitSet());
        for (int partition = of.nextSetBit(0); partition >= 0; partition = of.nextSetBit(partition + 1)) {
          long took = first[partition] == Long.MAX_VALUE ? Long.MAX_VALUE : (first[partition] - heal.stamp) / 1_000_000;
          if (took > worst) {
            worst = took;
            where = "slowest: producers " + role + "xxx, partition " + partition;
          }
        }
      }
      String line = heal.words + ": "
          + (worst < 0 ? "" : worst == Long.MAX_VALUE ? "never " : String.format("%.2f s ", worst / 1e3)) + "(" + where + ")";
      if (worst > boundMs) violation("slow-recovery", line);
      lines.add(line);
    }
    return lines;
  }

  /** All violations, each a line that begins with its kind; none when all is well. */
  List<String> finish() {
    producers.forEach((number, of) -> {
      if (!of.started) violation("bad-history", "producer " + number + " never started");
      long pending = of.invoked - of.ok - of.fail - of.maybe;
      if (of.ended && pending > 0) outcomeless(number, of);
      if (faults != null && of.maybe > of.explained()) {
        violation("too-many-unknown", of.maybe + " records of producer " + number + " are maybe, and "
            + of.explained() + " were out during faults");
      }
    });
    List<String> lines = new ArrayList<>();
    violations.forEach((kind, kept) -> {
      for (String what : kept) lines.add(kind + ": " + what);
      long more = violationCounts.get(kind) - kept.size();
      if (more > 0) lines.add(kind + ": and " + more + " more");
    });
    return lines;
  }

  private void outcomeless(int number, Producer of) {
    of.streams.forEach((key, stream) -> {
      for (long counter = 0; counter < stream.count; counter++) {
        int bits = stream.bits(counter);
        if ((bits & INVOKED) != 0 && (bits & OUTCOMES) == 0) violation("no-outcome", name(number, key, counter));
      }
    });
  }
}
