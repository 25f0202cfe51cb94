// Prints the batches of `batches.txt`, as Kafka's own Java client writes them, and reads batches back.
//
//   java -cp "$KAFKA/libs/*" Batches.java > batches.txt       (Kafka 4.3: `…record.internal`)
//   java -cp "$KAFKA/libs/*" Batches.java FILE...             files of batches to check and count
import java.nio.ByteBuffer;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.Arrays;
import org.apache.kafka.common.compress.Compression;
import org.apache.kafka.common.header.Header;
import org.apache.kafka.common.header.internals.RecordHeader;
import org.apache.kafka.common.record.*;
import org.apache.kafka.common.record.internal.*;

public class Batches {
  static final long BASE = 1700000000000L;

  public static void main(String[] files) throws Exception {
    for (String file : files) check(file);
    if (files.length > 0) return;
    for (CompressionType type : CompressionType.values()) {
      MemoryRecordsBuilder batch = new MemoryRecordsBuilder(
          ByteBuffer.allocate(4096), (byte) 2, Compression.of(type).build(),
          TimestampType.CREATE_TIME, 0L, -1L, 4711L, (short) 3, 17, false, false, -1, 4096);
      batch.append(BASE, "k1".getBytes(), "v1".getBytes(), new Header[] {
          new RecordHeader("h", "1".getBytes()),
          new RecordHeader("h", (byte[]) null),
          new RecordHeader("", new byte[0])});
      batch.append(BASE - 5, null, new byte[0], new Header[0]);
      batch.append(BASE + 86400000L, new byte[0], null, new Header[0]);
      byte[] x = new byte[300];
      Arrays.fill(x, (byte) 'x');
      batch.append(BASE + 1, null, x, new Header[0]);
      ByteBuffer bytes = batch.build().buffer();
      StringBuilder hex = new StringBuilder();
      while (bytes.hasRemaining()) hex.append(String.format("%02x", bytes.get()));
      System.out.println(type.name + " " + hex);
    }
  }

  static void check(String file) throws Exception {
    byte[] bytes = Files.readAllBytes(Path.of(file));
    for (MutableRecordBatch batch : MemoryRecords.readableRecords(ByteBuffer.wrap(bytes)).batches()) {
      batch.ensureValid();
      int records = 0;
      long values = 0;
      for (org.apache.kafka.common.record.internal.Record record : batch) {
        record.ensureValid();
        records++;
        values += Math.max(record.valueSize(), 0);
      }
      System.out.println(file + ": " + batch.compressionType() + ", " + records
          + " records, " + values + " bytes of values");
    }
  }
}
