import java.io.PrintWriter;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import java.util.Properties;
import java.util.Random;
import java.util.concurrent.Future;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerConfig;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.clients.producer.RecordMetadata;
import org.apache.kafka.common.header.internals.RecordHeader;
import org.apache.kafka.common.serialization.ByteArraySerializer;

/**
 * Writes random records with Kafka's own producer and its history: a history known to be right, to see
 * that {@link ReadBack} accepts one. Keys, null keys, null values, headers twice and with null values.
 */
final class WriteHistory {
  public static void main(String[] args) throws Exception {
    if (args.length != 5) {
      System.err.println("usage: WriteHistory BOOTSTRAP TOPIC RECORDS COMPRESSION HISTORY");
      System.exit(2);
    }
    Properties settings = new Properties();
    settings.put(ProducerConfig.BOOTSTRAP_SERVERS_CONFIG, args[0]);
    settings.put(ProducerConfig.KEY_SERIALIZER_CLASS_CONFIG, ByteArraySerializer.class.getName());
    settings.put(ProducerConfig.VALUE_SERIALIZER_CLASS_CONFIG, ByteArraySerializer.class.getName());
    settings.put(ProducerConfig.COMPRESSION_TYPE_CONFIG, args[3]);
    int records = Integer.parseInt(args[2]);
    Random random = new Random(records);
    List<ProducerRecord<byte[], byte[]>> sent = new ArrayList<>();
    List<Future<RecordMetadata>> acks = new ArrayList<>();
    try (KafkaProducer<byte[], byte[]> producer = new KafkaProducer<>(settings)) {
      for (int i = 0; i < records; i++) {
        ProducerRecord<byte[], byte[]> record = record(args[1], random);
        sent.add(record);
        acks.add(producer.send(record));
      }
    }
    try (PrintWriter out = new PrintWriter(Files.newBufferedWriter(Path.of(args[4])))) {
      out.println("# ord\tpartition\toffset\ttimestamp_ms\tkeyhash\tvaluehash\theadershash\toutcome");
      for (int i = 0; i < records; i++) {
        ProducerRecord<byte[], byte[]> record = sent.get(i);
        RecordMetadata ack = acks.get(i).get();
        HistoryCheck.HeadersHash headers = new HistoryCheck.HeadersHash();
        record.headers().forEach(header -> headers.add(header.key(), header.value()));
        HistoryCheck.Content content = new HistoryCheck.Content(
            HistoryCheck.hash(record.key()), HistoryCheck.hash(record.value()), headers.value());
        out.println(HistoryCheck.line(new HistoryCheck.Sent(
            i, ack.partition(), ack.offset(), ack.timestamp(), content, HistoryCheck.Outcome.OK)));
      }
    }
  }

  private static ProducerRecord<byte[], byte[]> record(String topic, Random random) {
    byte[] key = random.nextInt(3) == 0 ? null : bytes(random, random.nextInt(20));
    byte[] value = random.nextInt(50) == 0 ? null : bytes(random, (int) Math.pow(2, random.nextDouble() * 13) - 1);
    ProducerRecord<byte[], byte[]> record = new ProducerRecord<>(topic, key, value);
    for (int i = random.nextInt(8) - 4; i > 0; i--) {
      byte[] headerValue = random.nextInt(4) == 0 ? null : bytes(random, random.nextInt(10));
      record.headers().add(new RecordHeader(random.nextBoolean() ? "same" : "ключ", headerValue));
    }
    return record;
  }

  private static byte[] bytes(Random random, int length) {
    byte[] bytes = new byte[length];
    for (int i = 0; i < length; i++) bytes[i] = (byte) (i % 3 == 0 ? random.nextInt() : 'x');
    return bytes;
  }
}
