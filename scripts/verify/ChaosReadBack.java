import java.io.BufferedInputStream;
import java.io.DataInputStream;
import java.io.IOException;
import java.io.InputStream;
import java.nio.ByteBuffer;
import java.nio.file.Files;
import java.nio.file.Path;
import java.time.Duration;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import java.util.Map;
import java.util.Properties;
import java.util.concurrent.TimeUnit;
import org.apache.kafka.clients.admin.Admin;
import org.apache.kafka.clients.admin.AdminClientConfig;
import org.apache.kafka.clients.admin.ListOffsetsOptions;
import org.apache.kafka.clients.admin.OffsetSpec;
import org.apache.kafka.clients.admin.TopicDescription;
import org.apache.kafka.clients.consumer.ConsumerConfig;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.clients.producer.internals.BuiltInPartitioner;
import org.apache.kafka.common.IsolationLevel;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.serialization.ByteArrayDeserializer;

/**
 * Waits until the cluster is whole (every replica in sync, the last stable offset at the high
 * watermark), reads a topic twice with Kafka's own consumer, and compares it with histories of
 * ringpost-chaos (see {@link ChaosCheck}). Ends with 0 and OK, with 1 and the violations, or with 2 if
 * it could not compare.
 *
 * <p>A timeline has lines "nanoseconds, tab, words"; those that begin with "heal " are moments after
 * which every partition must be written to again, within --recovery-ms, and "fault " begins the next.
 * With --request-timeout-ms, outcomes other than ok are bounded: nothing of a fault is left that long
 * after its last heal. --patient names a role (producers / 1000) that no fault may harm.
 */
final class ChaosReadBack {
  private static final Duration PATIENCE = Duration.ofSeconds(60);
  private static final long WHOLE_SECONDS_MAX = 120;

  private record Mark(long stamp, String words) {}

  public static void main(String[] args) {
    List<String> words = new ArrayList<>(Arrays.asList(args));
    Path timeline = null;
    long recoveryMs = 5000;
    long requestTimeoutMs = -1;
    List<Integer> patient = new ArrayList<>();
    while (!words.isEmpty() && words.get(0).startsWith("--")) {
      String option = words.remove(0);
      String value = words.isEmpty() ? "" : words.remove(0);
      switch (option) {
        case "--timeline" -> timeline = Path.of(value);
        case "--recovery-ms" -> recoveryMs = Long.parseLong(value);
        case "--request-timeout-ms" -> requestTimeoutMs = Long.parseLong(value);
        case "--patient" -> patient.add(Integer.parseInt(value));
        default -> words.clear();
      }
    }
    if (words.size() < 3) {
      System.err.println("usage: ChaosReadBack [--timeline FILE] [--recovery-ms N] [--request-timeout-ms N] "
          + "[--patient ROLE] BOOTSTRAP TOPIC HISTORY...");
      System.exit(2);
    }
    try {
      System.exit(compare(words, timeline, recoveryMs, requestTimeoutMs, patient) ? 0 : 1);
    } catch (InterruptedException | RuntimeException | IOException | java.util.concurrent.ExecutionException
        | java.util.concurrent.TimeoutException e) {
      System.err.println("cannot compare: " + e);
      System.exit(2);
    }
  }

  private static boolean compare(
      List<String> words, Path timeline, long recoveryMs, long requestTimeoutMs, List<Integer> patient)
      throws IOException, InterruptedException, java.util.concurrent.ExecutionException,
          java.util.concurrent.TimeoutException {
    String bootstrap = words.get(0);
    String topic = words.get(1);
    List<Path> histories = words.subList(2, words.size()).stream().map(Path::of).toList();
    List<TopicPartition> partitions = whenWhole(bootstrap, topic);
    ChaosCheck check = new ChaosCheck(runOf(histories.get(0)), topic, partitions.size());
    List<Mark> marks = timeline == null ? List.of() : marks(timeline);
    heals(marks, check);
    if (requestTimeoutMs >= 0) check.faults(faults(marks, requestTimeoutMs * 1_000_000));
    patient.forEach(check::patient);
    for (Path history : histories) read(history, check);
    long[] records = new long[2];
    for (ChaosCheck.Pass pass : ChaosCheck.Pass.values()) {
      check.begin(pass);
      String isolation = pass == ChaosCheck.Pass.READ_COMMITTED ? "read_committed" : "read_uncommitted";
      // One partition after the other: the check wants each in the order of its offsets.
      for (TopicPartition partition : partitions) {
        records[pass.ordinal()] += read(bootstrap, partition, partitions.size(), isolation, check);
      }
      check.end();
    }
    check.perProducer().forEach(System.out::println);
    for (String line : check.recoveries(recoveryMs)) System.out.println("recovery after " + line);
    List<String> violations = check.finish();
    violations.forEach(System.out::println);
    ChaosCheck.Summary sum = check.summary();
    System.out.printf(
        "%s invoked=%d ok=%d fail=%d maybe=%d maybe_max=%s cut_off=%d ok_without_offset=%d read_uncommitted=%d "
            + "read_committed=%d partitions=%d violations=%d%n",
        violations.isEmpty() ? "OK" : "FAILED", sum.invoked(), sum.ok(), sum.fail(), sum.maybe(),
        check.unknownMax() < 0 ? "-" : Long.toString(check.unknownMax()), sum.cutOff(), sum.okWithoutOffset(), records[0], records[1],
        partitions.size(), violations.size());
    return violations.isEmpty();
  }

  /** The topic's partitions, once every replica is in sync and nothing is undecided. */
  private static List<TopicPartition> whenWhole(String bootstrap, String topic)
      throws InterruptedException, java.util.concurrent.ExecutionException, java.util.concurrent.TimeoutException {
    Properties settings = new Properties();
    settings.put(AdminClientConfig.BOOTSTRAP_SERVERS_CONFIG, bootstrap);
    long deadline = System.nanoTime() + TimeUnit.SECONDS.toNanos(WHOLE_SECONDS_MAX);
    try (Admin admin = Admin.create(settings)) {
      while (true) {
        String why;
        try {
          TopicDescription description =
              admin.describeTopics(List.of(topic)).allTopicNames().get(20, TimeUnit.SECONDS).get(topic);
          List<TopicPartition> partitions =
              description.partitions().stream().map(info -> new TopicPartition(topic, info.partition())).toList();
          long short_ = description.partitions().stream()
              .filter(info -> info.leader() == null || info.isr().size() < info.replicas().size()).count();
          why = short_ + " partitions lack replicas in sync";
          if (short_ == 0) {
            Map<TopicPartition, Long> high = ends(admin, partitions, IsolationLevel.READ_UNCOMMITTED);
            Map<TopicPartition, Long> stable = ends(admin, partitions, IsolationLevel.READ_COMMITTED);
            if (high.equals(stable)) return partitions;
            why = "some last stable offsets lie below the high watermark";
          }
        } catch (java.util.concurrent.ExecutionException e) {
          why = e.getCause().toString();
        }
        if (System.nanoTime() > deadline) {
          throw new IllegalStateException("the cluster did not become whole in " + WHOLE_SECONDS_MAX + " s: " + why);
        }
        TimeUnit.MILLISECONDS.sleep(500); // a state of others that sends no event
      }
    }
  }

  private static Map<TopicPartition, Long> ends(Admin admin, List<TopicPartition> partitions, IsolationLevel level)
      throws InterruptedException, java.util.concurrent.ExecutionException, java.util.concurrent.TimeoutException {
    Map<TopicPartition, OffsetSpec> latest = new java.util.HashMap<>();
    partitions.forEach(partition -> latest.put(partition, OffsetSpec.latest()));
    Map<TopicPartition, Long> ends = new java.util.HashMap<>();
    admin.listOffsets(latest, new ListOffsetsOptions(level)).all().get(20, TimeUnit.SECONDS)
        .forEach((partition, info) -> ends.put(partition, info.offset()));
    return ends;
  }

  private static List<Mark> marks(Path timeline) throws IOException {
    List<Mark> marks = new ArrayList<>();
    for (String line : Files.readAllLines(timeline)) {
      String[] field = line.split("\t", 2);
      if (field.length == 2) marks.add(new Mark(Long.parseLong(field[0]), field[1]));
    }
    return marks;
  }

  /** Each from its begin until so long after the last heal before the next. */
  private static List<ChaosCheck.Fault> faults(List<Mark> marks, long left) {
    List<ChaosCheck.Fault> faults = new ArrayList<>();
    for (int i = 0; i < marks.size(); i++) {
      if (!marks.get(i).words.startsWith("fault ")) continue;
      long healed = -1;
      for (Mark later : marks.subList(i + 1, marks.size())) {
        if (later.words.startsWith("fault ")) break;
        if (later.words.startsWith("heal ")) healed = later.stamp;
      }
      faults.add(new ChaosCheck.Fault(marks.get(i).stamp, healed < 0 ? Long.MAX_VALUE : healed + left));
    }
    return faults;
  }

  private static void heals(List<Mark> marks, ChaosCheck check) {
    long begun = marks.isEmpty() ? 0 : marks.get(0).stamp;
    for (int i = 0; i < marks.size(); i++) {
      Mark mark = marks.get(i);
      if (!mark.words.startsWith("heal ")) continue;
      long until = Long.MAX_VALUE;
      for (Mark later : marks.subList(i + 1, marks.size())) {
        if (later.words.startsWith("fault ") || later.words.startsWith("end")) {
          until = later.stamp;
          break;
        }
      }
      check.heal(mark.stamp, String.format("%s at +%.1f s", mark.words, (mark.stamp - begun) / 1e9), until);
    }
  }

  private static long runOf(Path history) throws IOException {
    try (DataInputStream in = new DataInputStream(Files.newInputStream(history))) {
      in.readNBytes(8);
      return in.readLong();
    }
  }

  private static void read(Path history, ChaosCheck check) throws IOException {
    try (InputStream in = new BufferedInputStream(Files.newInputStream(history), 1 << 20)) {
      byte[] header = in.readNBytes(ChaosCheck.HEADER_BYTES);
      if (header.length < ChaosCheck.HEADER_BYTES
          || !Arrays.equals(Arrays.copyOf(header, 8), ChaosCheck.HISTORY_MAGIC)) {
        throw new IOException(history + " is no history");
      }
      byte[] event = new byte[ChaosCheck.EVENT_BYTES];
      ByteBuffer bytes = ByteBuffer.wrap(event);
      while (in.readNBytes(event, 0, event.length) == event.length) {
        check.event((char) event[0], bytes.getInt(4), bytes.getInt(8), bytes.getInt(12), bytes.getLong(16),
            bytes.getLong(24), bytes.getLong(32));
      }
    }
  }

  private static Properties settings(String bootstrap, String isolation) {
    Properties settings = new Properties();
    settings.put(ConsumerConfig.BOOTSTRAP_SERVERS_CONFIG, bootstrap);
    settings.put(ConsumerConfig.KEY_DESERIALIZER_CLASS_CONFIG, ByteArrayDeserializer.class.getName());
    settings.put(ConsumerConfig.VALUE_DESERIALIZER_CLASS_CONFIG, ByteArrayDeserializer.class.getName());
    settings.put(ConsumerConfig.CHECK_CRCS_CONFIG, "true");
    settings.put(ConsumerConfig.ISOLATION_LEVEL_CONFIG, isolation);
    settings.put(ConsumerConfig.ENABLE_AUTO_COMMIT_CONFIG, "false");
    settings.put(ConsumerConfig.AUTO_OFFSET_RESET_CONFIG, "none"); // an offset that is gone is an error
    settings.put(ConsumerConfig.ALLOW_AUTO_CREATE_TOPICS_CONFIG, "false");
    settings.put(ConsumerConfig.MAX_POLL_RECORDS_CONFIG, "10000");
    settings.put(ConsumerConfig.MAX_PARTITION_FETCH_BYTES_CONFIG, "8388608");
    return settings;
  }

  private static long read(
      String bootstrap, TopicPartition partition, int partitions, String isolation, ChaosCheck check) {
    try (KafkaConsumer<byte[], byte[]> consumer = new KafkaConsumer<>(settings(bootstrap, isolation))) {
      List<TopicPartition> one = List.of(partition);
      consumer.assign(one);
      long end = consumer.endOffsets(one, PATIENCE).get(partition);
      consumer.seek(partition, 0); // nothing may have been deleted
      long records = 0;
      long lastProgress = System.nanoTime();
      long position = 0;
      while (position < end) {
        for (ConsumerRecord<byte[], byte[]> record : consumer.poll(Duration.ofMillis(200))) {
          int javaPartition =
              record.key() == null ? -1 : BuiltInPartitioner.partitionForKey(record.key(), partitions);
          check.found(record.partition(), record.offset(), record.value(), javaPartition);
          records++;
        }
        long now = consumer.position(partition);
        if (now != position) {
          position = now;
          lastProgress = System.nanoTime();
        } else if (System.nanoTime() - lastProgress > PATIENCE.toNanos()) {
          throw new IllegalStateException("no progress for " + PATIENCE.toSeconds() + " s in " + partition);
        }
      }
      return records;
    }
  }
}
