import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import java.io.File;
import java.io.IOException;
import java.util.ArrayList;
import java.util.List;
import org.HdrHistogram.Histogram;
import org.HdrHistogram.HistogramLogReader;

/**
 * What HdrHistogram's own reader sees in the logs of a results folder, against what its run.json says.
 *
 * <p>One program reads what another one wrote: a log that only its writer understands is no log.
 */
public final class ReadLogs {
    /** Logs have milliseconds, and are read back through floating point. */
    private static final double TIME_SLACK_S = 0.002;
    /** Ranks are computed in floating point: either neighbour of a rank that is a whole number is right. */
    private static final double RANK_SLACK_PERCENT = 1e-6;

    private final List<String> faults = new ArrayList<>();
    private final File folder;
    private final JsonNode run;

    private ReadLogs(File folder) throws IOException {
        this.folder = folder;
        this.run = new ObjectMapper().readTree(new File(folder, "run.json"));
    }

    public static void main(String[] folders) throws IOException {
        boolean good = true;
        for (String folder : folders) {
            ReadLogs read = new ReadLogs(new File(folder));
            read.latency("response");
            read.latency("service");
            read.throughput();
            for (String fault : read.faults) {
                System.out.println("FAULT " + folder + ": " + fault);
            }
            good &= read.faults.isEmpty();
        }
        System.exit(good ? 0 : 1);
    }

    /** Times in ns; the document has µs with three decimals. */
    private void latency(String name) throws IOException {
        Histogram total = total(name + ".hlog", name + "_us");
        JsonNode figures = run.path("latency_us").path(name);
        long records = run.path("acked_records").asLong() + run.path("sent_records").asLong();
        same(name, "count", records, total.getTotalCount(), total.getTotalCount());
        percentile(name, total, figures, "p50", 50, 1e3);
        percentile(name, total, figures, "p90", 90, 1e3);
        percentile(name, total, figures, "p99", 99, 1e3);
        percentile(name, total, figures, "p99_9", 99.9, 1e3);
        percentile(name, total, figures, "p99_99", 99.99, 1e3);
        same(name, "max", figures.path("max").asDouble(), total.getMaxValue() / 1e3, total.getMaxValue() / 1e3);
        told(name, total);
    }

    /** Records per second; a value for every 10 ms of every part. */
    private void throughput() throws IOException {
        Histogram total = total("throughput.hlog", "throughput");
        JsonNode figures = run.path("throughput");
        for (int percent : new int[] {1, 10, 50, 90, 99}) {
            percentile("throughput", total, figures, "p" + percent, percent, 1);
        }
        double seconds = 0;
        for (JsonNode part : run.path("merged").path("parts")) {
            seconds += part.path("elapsed_s").asDouble();
        }
        double ticks = 100 * (seconds > 0 ? seconds : run.path("elapsed_s").asDouble());
        if (Math.abs(total.getTotalCount() - ticks) > 2 + ticks / 20) {
            faults.add("throughput.hlog: count: " + total.getTotalCount() + " values of 10 ms in " + ticks / 100 + " s");
        }
        told("throughput", total);
    }

    /** All intervals of a log, each of which lies where run.json has it; those without a value are not in the log. */
    private Histogram total(String name, String figures) throws IOException {
        Histogram total = null;
        int intervals = 0;
        List<JsonNode> expected = new ArrayList<>();
        for (JsonNode interval : run.path("intervals")) {
            if (interval.hasNonNull(figures)) {
                expected.add(interval);
            }
        }
        try (HistogramLogReader reader = new HistogramLogReader(new File(folder, name))) {
            while (reader.hasNext()) {
                Histogram interval = (Histogram) reader.nextIntervalHistogram();
                if (interval == null) {
                    break;
                }
                JsonNode here = intervals < expected.size() ? expected.get(intervals) : null;
                intervals++;
                double start = interval.getStartTimeStamp() / 1e3 - reader.getStartTimeSec();
                double length = (interval.getEndTimeStamp() - interval.getStartTimeStamp()) / 1e3;
                lies(name, intervals, "start", start, here, "start_s");
                lies(name, intervals, "length", length, here, "length_s");
                if (total == null) {
                    total = interval.copy();
                } else {
                    total.add(interval);
                }
            }
            if (reader.getStartTimeSec() < 1.5e9) {
                faults.add(name + ": no start time");
            }
        }
        if (intervals == 0 || intervals != expected.size()) {
            faults.add(name + ": intervals: " + intervals + " here, " + expected.size() + " in run.json");
        }
        return total == null ? new Histogram(3) : total;
    }

    private void lies(String name, int number, String what, double seconds, JsonNode here, String field) {
        double document = here == null ? Double.NaN : here.path(field).asDouble(Double.NaN);
        if (!(Math.abs(seconds - document) <= TIME_SLACK_S)) {
            faults.add(name + ": " + what + " of interval " + number + ": " + seconds + " s here, " + document + " in run.json");
        }
    }

    private void percentile(String log, Histogram total, JsonNode figures, String field, double percentile, double unit) {
        double low = total.getValueAtPercentile(percentile - RANK_SLACK_PERCENT) / unit;
        double high = total.getValueAtPercentile(percentile + RANK_SLACK_PERCENT) / unit;
        same(log, field, figures.path(field).asDouble(Double.NaN), low, high);
    }

    private void same(String log, String what, double document, double low, double high) {
        // The document's decimals end at a ns.
        if (!(document > low - 0.000_6 && document < high + 0.000_6)) {
            faults.add(log + ".hlog: " + what + ": " + low + " here, " + document + " in run.json");
        }
    }

    private void told(String log, Histogram total) {
        System.out.printf(
                "%s/%s.hlog: %d values, p50 %d, p99 %d, p99.9 %d, max %d%n",
                folder, log, total.getTotalCount(), total.getValueAtPercentile(50), total.getValueAtPercentile(99),
                total.getValueAtPercentile(99.9), total.getMaxValue());
    }
}
