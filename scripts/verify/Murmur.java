import java.io.BufferedReader;
import java.io.InputStreamReader;
import java.util.HexFormat;
import org.apache.kafka.clients.producer.internals.BuiltInPartitioner;

/** Reads keys in hex, one a line, and prints the partition that Kafka's own client gives each of N. */
final class Murmur {
  public static void main(String[] args) throws Exception {
    if (args.length != 1) {
      System.err.println("usage: Murmur PARTITIONS <KEYS_IN_HEX");
      System.exit(2);
    }
    int partitions = Integer.parseInt(args[0]);
    StringBuilder out = new StringBuilder();
    BufferedReader keys = new BufferedReader(new InputStreamReader(System.in));
    for (String key = keys.readLine(); key != null; key = keys.readLine()) {
      out.append(BuiltInPartitioner.partitionForKey(HexFormat.of().parseHex(key.trim()), partitions)).append('\n');
    }
    System.out.print(out);
  }
}
