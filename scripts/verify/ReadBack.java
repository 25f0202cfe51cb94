import java.io.IOException;
import java.nio.file.Path;
import java.time.Duration;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.Properties;
import org.apache.kafka.clients.consumer.ConsumerConfig;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.clients.producer.internals.BuiltInPartitioner;
import org.apache.kafka.common.PartitionInfo;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.header.Header;
import org.apache.kafka.common.serialization.ByteArrayDeserializer;

/**
 * Reads a topic from its beginning to its end with Kafka's own consumer, CRCs checked, and compares it
 * with a history (see {@link HistoryCheck}). Ends with 0 and OK, with 1 and the first violations, or
 * with 2 if it could not compare.
 */
final class ReadBack {
  private static final int SHOWN = 20;
  private static final Duration PATIENCE = Duration.ofSeconds(30);

  public static void main(String[] args) {
    boolean anyPartitioner = args.length == 4 && args[3].equals("--any-partitioner");
    if (args.length != 3 && !anyPartitioner) {
      System.err.println("usage: ReadBack BOOTSTRAP TOPIC HISTORY [--any-partitioner]");
      System.exit(2);
    }
    List<HistoryCheck.Sent> history = null;
    List<HistoryCheck.Found> found = new ArrayList<>();
    int partitions = 0;
    try {
      history = HistoryCheck.read(Path.of(args[2]));
      partitions = read(args[0], args[1], !anyPartitioner, found);
    } catch (IOException | RuntimeException e) {
      System.err.println("cannot compare: " + e);
      System.exit(2);
    }
    List<String> violations = HistoryCheck.check(history, found);
    if (violations.isEmpty()) {
      System.out.printf("OK records=%d partitions=%d%n", found.size(), partitions);
      return;
    }
    violations.stream().limit(SHOWN).forEach(System.out::println);
    System.out.printf("FAILED violations=%d%s sent=%d found=%d partitions=%d%n", violations.size(),
        violations.size() > SHOWN ? " (the first " + SHOWN + " are above)" : "", history.size(), found.size(), partitions);
    System.exit(1);
  }

  private static Properties settings(String bootstrap) {
    Properties settings = new Properties();
    settings.put(ConsumerConfig.BOOTSTRAP_SERVERS_CONFIG, bootstrap);
    settings.put(ConsumerConfig.KEY_DESERIALIZER_CLASS_CONFIG, ByteArrayDeserializer.class.getName());
    settings.put(ConsumerConfig.VALUE_DESERIALIZER_CLASS_CONFIG, ByteArrayDeserializer.class.getName());
    settings.put(ConsumerConfig.CHECK_CRCS_CONFIG, "true");
    settings.put(ConsumerConfig.ISOLATION_LEVEL_CONFIG, "read_uncommitted");
    settings.put(ConsumerConfig.ENABLE_AUTO_COMMIT_CONFIG, "false");
    settings.put(ConsumerConfig.AUTO_OFFSET_RESET_CONFIG, "none"); // an offset that is gone is an error
    settings.put(ConsumerConfig.ALLOW_AUTO_CREATE_TOPICS_CONFIG, "false");
    settings.put(ConsumerConfig.MAX_POLL_RECORDS_CONFIG, "5000");
    settings.put(ConsumerConfig.MAX_PARTITION_FETCH_BYTES_CONFIG, "8388608");
    return settings;
  }

  private static int read(String bootstrap, String topic, boolean javaPartitioner, List<HistoryCheck.Found> found) {
    try (KafkaConsumer<byte[], byte[]> consumer = new KafkaConsumer<>(settings(bootstrap))) {
      List<PartitionInfo> infos = consumer.partitionsFor(topic, PATIENCE);
      if (infos == null || infos.isEmpty()) throw new IllegalStateException("there is no topic " + topic);
      List<TopicPartition> partitions = new ArrayList<>();
      for (PartitionInfo info : infos) partitions.add(new TopicPartition(topic, info.partition()));
      consumer.assign(partitions); // before asking for offsets: 4.x warns about partitions not assigned
      Map<TopicPartition, Long> ends = consumer.endOffsets(partitions, PATIENCE);
      consumer.beginningOffsets(partitions, PATIENCE).forEach(consumer::seek);

      List<TopicPartition> unfinished = new ArrayList<>(partitions);
      long lastProgress = System.nanoTime();
      long positions = -1;
      while (!finished(consumer, unfinished, ends)) {
        for (ConsumerRecord<byte[], byte[]> record : consumer.poll(Duration.ofMillis(200))) {
          // What came after the ends were asked for is read too: with a quiet topic, that is extra.
          found.add(found(record, javaPartitioner ? infos.size() : 0));
        }
        long now = 0;
        for (TopicPartition partition : partitions) now += consumer.position(partition);
        if (now != positions) {
          positions = now;
          lastProgress = System.nanoTime();
        } else if (System.nanoTime() - lastProgress > PATIENCE.toNanos()) {
          throw new IllegalStateException("no progress for " + PATIENCE.toSeconds() + " s; unfinished: " + unfinished);
        }
      }
      return infos.size();
    }
  }

  private static boolean finished(
      KafkaConsumer<byte[], byte[]> consumer, List<TopicPartition> unfinished, Map<TopicPartition, Long> ends) {
    unfinished.removeIf(partition -> {
      if (consumer.position(partition) < ends.get(partition)) return false;
      consumer.pause(List.of(partition));
      return true;
    });
    return unfinished.isEmpty();
  }

  /** partitions: how many the topic has, or 0 if keys may lie anywhere. */
  private static HistoryCheck.Found found(ConsumerRecord<byte[], byte[]> record, int partitions) {
    HistoryCheck.HeadersHash headers = new HistoryCheck.HeadersHash();
    for (Header header : record.headers()) headers.add(header.key(), header.value());
    HistoryCheck.Content content = new HistoryCheck.Content(
        HistoryCheck.hash(record.key()), HistoryCheck.hash(record.value()), headers.value());
    int javaPartition = record.key() == null || partitions == 0
        ? HistoryCheck.NONE
        : BuiltInPartitioner.partitionForKey(record.key(), partitions);
    return new HistoryCheck.Found(record.partition(), record.offset(), record.timestamp(), content, javaPartition);
  }
}
