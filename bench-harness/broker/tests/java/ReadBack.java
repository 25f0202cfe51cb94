// Reads a topic with the Java client: every partition assigned, from the beginning, until so many
// records came. One line per record:
//   partition offset timestamp key value header=value;header=value
// with everything that is bytes in hexadecimal, and "null" for null.
//
// java -cp 'KAFKA_LIB/*' ReadBack.java BOOTSTRAP TOPIC RECORDS SECONDS

import java.time.Duration;
import java.util.HexFormat;
import java.util.List;
import java.util.Properties;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.header.Header;
import org.apache.kafka.common.serialization.ByteArrayDeserializer;

public class ReadBack {
    static String hex(byte[] bytes) {
        return bytes == null ? "null" : "x" + HexFormat.of().formatHex(bytes);
    }

    public static void main(String[] args) {
        long wanted = Long.parseLong(args[2]);
        long deadline = System.nanoTime() + Duration.ofSeconds(Long.parseLong(args[3])).toNanos();
        Properties config = new Properties();
        config.put("bootstrap.servers", args[0]);
        config.put("check.crcs", "true");
        config.put("enable.metrics.push", "false");
        StringBuilder out = new StringBuilder();
        long seen = 0;
        ByteArrayDeserializer bytes = new ByteArrayDeserializer();
        try (KafkaConsumer<byte[], byte[]> consumer = new KafkaConsumer<>(config, bytes, bytes)) {
            List<TopicPartition> all = consumer.partitionsFor(args[1]).stream()
                .map(p -> new TopicPartition(p.topic(), p.partition()))
                .toList();
            consumer.assign(all);
            consumer.seekToBeginning(all);
            while (seen < wanted && System.nanoTime() < deadline) {
                for (ConsumerRecord<byte[], byte[]> r : consumer.poll(Duration.ofMillis(200))) {
                    out.append(r.partition()).append(' ').append(r.offset()).append(' ');
                    out.append(r.timestamp()).append(' ');
                    out.append(hex(r.key())).append(' ').append(hex(r.value())).append(' ');
                    for (Header h : r.headers()) {
                        out.append(h.key()).append('=').append(hex(h.value())).append(';');
                    }
                    out.append('\n');
                    seen++;
                }
            }
        }
        System.out.print(out);
        System.exit(seen == wanted ? 0 : 1);
    }
}
