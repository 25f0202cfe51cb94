import java.nio.ByteBuffer;
import java.nio.charset.StandardCharsets;
import java.util.ArrayList;
import java.util.List;
import java.util.Set;
import java.util.TreeSet;
import java.util.function.Consumer;
import java.util.zip.CRC32;

/** Is the chaos checker awake? A clean run must pass, and one planted anomaly of each kind must be named. */
final class ChaosCheckTest {
  private static final long RUN = 77;
  private static final int PARTITIONS = 3;
  private static final int PER_STREAM = 20_000; // more than a chunk
  private static final long SECOND = 1_000_000_000L;
  private static int passed;
  private static int failed;

  private static final class Event {
    char kind;
    int producer = 1000;
    int stream;
    int partition;
    long counter;
    long value;
    long stamp;
  }

  private static final class Found {
    int partition;
    long offset;
    byte[] value;
    int javaPartition = -1;
  }

  /** A clean run, to be spoiled: streams 0 to 2 on their partitions, one record a millisecond and stream. */
  private static final class Run {
    final List<Event> events = new ArrayList<>();
    final List<List<Found>> passes = List.of(new ArrayList<>(), new ArrayList<>());
    final List<Long> heals = new ArrayList<>();
    final List<Integer> patient = new ArrayList<>();
    List<ChaosCheck.Fault> faults;

    Run() {
      events.add(event('S', 0, -1, 0, 0, 0));
      for (int counter = 0; counter < PER_STREAM; counter++) {
        for (int stream = 0; stream < PARTITIONS; stream++) {
          events.add(event('I', stream, stream, counter, 0, counter * 1_000_000L));
          events.add(event('O', stream, stream, counter, counter, counter * 1_000_000L + 500));
        }
      }
      for (List<Found> pass : passes) {
        for (int partition = 0; partition < PARTITIONS; partition++) {
          for (int counter = 0; counter < PER_STREAM; counter++) {
            pass.add(found(partition, counter, payload(RUN, 1000, partition, partition, counter, 0, "t")));
          }
        }
      }
      events.add(event('E', 0, -1, 0, 0, 20 * SECOND));
    }

    Event of(char kind, int stream, long counter) {
      return events.stream()
          .filter(e -> e.kind == kind && e.stream == stream && e.counter == counter)
          .findFirst().orElseThrow();
    }

    Found at(int pass, int partition, long offset) {
      return passes.get(pass).get(partition * PER_STREAM + (int) offset);
    }

    void both(Consumer<List<Found>> spoil) {
      passes.forEach(spoil);
    }

    /** Makes records 10 to 12 of every stream those of transaction 5. */
    void transaction(char fate) {
      for (Event event : events) {
        if (event.kind == 'I' && event.counter >= 10 && event.counter <= 12) event.value = 5;
      }
      if (fate != '-') events.add(events.size() - 1, event(fate, 0, -1, 5, 0, 0));
      both(pass -> pass.stream().filter(f -> f.offset >= 10 && f.offset <= 12)
          .forEach(f -> f.value = payload(RUN, 1000, f.partition, f.partition, f.offset, 5, "t")));
    }

    /** The producer chooses where its records go. */
    void goAnywhere() {
      for (Event event : events) {
        if (event.kind == 'I') event.partition = -1;
      }
      both(pass -> pass.forEach(f -> f.value = payload(RUN, 1000, f.partition, -1, f.offset, 0, "t")));
    }

    void absent(int pass, int partition, long from, long to) {
      passes.get(pass).removeIf(f -> f.partition == partition && f.offset >= from && f.offset <= to);
    }

    List<String> check() {
      ChaosCheck check = new ChaosCheck(RUN, "t", PARTITIONS);
      for (int i = 0; i < heals.size(); i++) {
        check.heal(heals.get(i), "heal " + i, i + 1 < heals.size() ? heals.get(i + 1) : Long.MAX_VALUE);
      }
      if (faults != null) check.faults(faults);
      patient.forEach(check::patient);
      for (Event e : events) check.event(e.kind, e.producer, e.stream, e.partition, e.counter, e.value, e.stamp);
      for (ChaosCheck.Pass pass : ChaosCheck.Pass.values()) {
        check.begin(pass);
        for (Found f : passes.get(pass.ordinal())) check.found(f.partition, f.offset, f.value, f.javaPartition);
        check.end();
      }
      check.recoveries(5000);
      return check.finish();
    }
  }

  private static Event event(char kind, int stream, int partition, long counter, long value, long stamp) {
    Event event = new Event();
    event.kind = kind;
    event.stream = stream;
    event.partition = partition;
    event.counter = counter;
    event.value = value;
    event.stamp = stamp;
    return event;
  }

  private static Found found(int partition, long offset, byte[] value) {
    Found found = new Found();
    found.partition = partition;
    found.offset = offset;
    found.value = value;
    return found;
  }

  private static byte[] payload(
      long run, int producer, int stream, int partition, long counter, long transaction, String topic) {
    byte[] name = topic.getBytes(StandardCharsets.UTF_8);
    ByteBuffer bytes = ByteBuffer.allocate(60 + name.length);
    bytes.putInt(0x52504348).putLong(run).putInt(producer).putInt(stream).putInt(partition).putLong(counter);
    bytes.putLong(transaction).putShort((short) name.length).put(name);
    CRC32 crc = new CRC32();
    crc.update(bytes.array(), 0, bytes.capacity() - 4);
    bytes.putInt(bytes.capacity() - 4, (int) crc.getValue());
    return bytes.array();
  }

  /** Spoils a clean run; the kinds of violations reported must be exactly these. */
  private static void planted(String name, Consumer<Run> spoil, String... kinds) {
    Run run = new Run();
    spoil.accept(run);
    List<String> violations = run.check();
    Set<String> got = new TreeSet<>();
    for (String violation : violations) got.add(violation.substring(0, violation.indexOf(':')));
    if (got.equals(new TreeSet<>(List.of(kinds)))) {
      passed++;
    } else {
      failed++;
      System.out.println("FAILED " + name + ": " + violations);
    }
  }

  public static void main(String[] args) {
    planted("clean", run -> {});
    // 1
    planted("lost", run -> run.both(pass -> pass.remove(17)), "lost");
    planted("lost at the end", run -> run.both(pass -> pass.remove(pass.size() - 1)), "lost");
    planted("lost for read_committed only", run -> run.absent(1, 0, 4, 4), "lost");
    planted("everything lost", run -> run.both(List::clear), "lost");
    planted("another offset than acked", run -> run.of('O', 1, 9).value = 4444, "wrong-offset");
    planted("another partition than acked", run -> run.of('O', 1, 9).partition = 2, "wrong-offset");
    planted("acked without offset", run -> run.of('O', 1, 9).value = -1);
    // 2
    planted("never invoked",
        run -> run.both(pass -> pass.add(found(2, PER_STREAM, payload(RUN, 1000, 2, 2, PER_STREAM, 0, "t")))),
        "never-invoked");
    planted("never invoked, by a stranger",
        run -> run.both(pass -> pass.add(found(2, PER_STREAM, payload(RUN, 1001, 2, 2, 0, 0, "t")))), "never-invoked");
    planted("of another run",
        run -> run.both(pass -> pass.add(found(2, PER_STREAM, payload(78, 1000, 2, 2, 0, 0, "t")))), "foreign");
    planted("no payload", run -> run.both(pass -> pass.add(found(2, PER_STREAM, new byte[5]))), "foreign");
    planted("null value", run -> run.both(pass -> pass.add(found(2, PER_STREAM, null))), "foreign");
    // 3
    planted("failed but written", run -> run.of('O', 1, 9).kind = 'F', "failed-but-written");
    planted("failed, not written", run -> {
      run.of('O', 1, 9).kind = 'F';
      run.both(pass -> pass.remove(PER_STREAM + 9));
    });
    // 4
    planted("duplicate",
        run -> run.both(pass -> pass.add(found(2, PER_STREAM, payload(RUN, 1000, 2, 2, 7, 0, "t")))), "duplicate");
    planted("maybe, written twice", run -> {
      run.of('O', 2, 7).kind = 'M';
      run.both(pass -> pass.add(found(2, PER_STREAM, payload(RUN, 1000, 2, 2, 7, 0, "t"))));
    }, "duplicate");
    // 5
    planted("reordered, acked as they lie", run -> {
      for (int pass = 0; pass < 2; pass++) swap(run.at(pass, 1, 50), run.at(pass, 1, 53));
      run.of('O', 1, 50).value = 53;
      run.of('O', 1, 53).value = 50;
    }, "reordered");
    planted("without a place of its own, in no order", run -> {
      for (int pass = 0; pass < 2; pass++) swap(run.at(pass, 1, 50), run.at(pass, 1, 53));
      for (long counter : new long[] {50, 53}) {
        run.of('O', 1, counter).value = 103 - counter;
        for (int pass = 0; pass < 2; pass++) {
          run.at(pass, 1, 103 - counter).value = payload(RUN, 1000, 1, -1, counter, 0, "t");
        }
      }
    });
    // 6
    planted("a gap nobody was told of", run -> {
      run.events.remove(run.of('O', 1, 9));
      run.both(pass -> pass.remove(PER_STREAM + 9));
    }, "gap", "no-outcome");
    planted("a gap that was told of", run -> {
      run.of('O', 1, 9).kind = 'M';
      run.both(pass -> pass.remove(PER_STREAM + 9));
    });
    // 7
    planted("corrupt", run -> run.both(pass -> pass.get(9).value[45] ^= 4), "corrupt", "lost");
    planted("of another topic",
        run -> run.both(pass -> pass.get(9).value = payload(RUN, 1000, 0, 0, 9, 0, "u")), "wrong-topic", "lost");
    planted("a topic's name longer than the record", run -> run.both(pass -> {
      byte[] value = pass.get(9).value;
      value[40] = 120;
      CRC32 crc = new CRC32();
      crc.update(value, 0, value.length - 4);
      ByteBuffer.wrap(value).putInt(value.length - 4, (int) crc.getValue());
    }), "wrong-topic", "lost");
    planted("of another partition",
        run -> run.both(pass -> pass.get(9).value = payload(RUN, 1000, 1, 1, 9, 0, "t")), "wrong-partition", "lost");
    planted("a key on another partition than Kafka's client's",
        run -> run.both(pass -> pass.get(9).javaPartition = 2), "wrong-key");
    // 8
    planted("committed, all there", run -> run.transaction('C'));
    planted("aborted, none there", run -> {
      run.transaction('A');
      for (int partition = 0; partition < 3; partition++) run.absent(1, partition, 10, 12);
    });
    planted("committed, one record lost", run -> {
      run.transaction('C');
      run.absent(1, 1, 11, 11);
    }, "lost-commit");
    planted("aborted, one record read", run -> {
      run.transaction('A');
      for (int partition = 0; partition < 3; partition++) run.absent(1, partition, 10, partition == 1 ? 11 : 12);
    }, "aborted-read");
    planted("unknown, torn", run -> {
      run.transaction('U');
      run.absent(1, 2, 10, 12);
    }, "torn");
    planted("unknown, all there", run -> run.transaction('U'));
    planted("unknown, none there", run -> {
      run.transaction('U');
      for (int partition = 0; partition < 3; partition++) run.absent(1, partition, 10, 12);
    });
    planted("never ended, and read", run -> run.transaction('-'), "uncommitted-read");
    // 9
    planted("no outcome", run -> run.events.remove(run.of('O', 1, 9)), "no-outcome");
    planted("no outcome of a killed producer", run -> {
      run.events.remove(run.of('O', 1, 9));
      run.events.remove(run.events.size() - 1);
    });
    planted("two outcomes", run -> run.events.add(event('M', 1, 1, 9, 0, 1)), "two-outcomes");
    planted("an outcome nobody invoked", run -> run.events.add(event('F', 1, 1, PER_STREAM, 0, 1)), "bad-history");
    planted("invoked twice", run -> run.events.add(event('I', 1, 1, 9, 0, 1)), "bad-history");
    planted("a counter left out", run -> run.events.add(event('I', 1, 1, PER_STREAM + 1, 0, 1)), "bad-history",
        "no-outcome");
    planted("never started", run -> run.events.remove(0), "bad-history");
    planted("no such event", run -> run.events.add(event('X', 1, 1, 1, 0, 1)), "bad-history");
    // 10
    planted("recovered in time", run -> {
      run.heals.addAll(List.of(3 * SECOND, 9 * SECOND));
      silence(run, 1, 3 * SECOND, 7 * SECOND);
    });
    planted("recovered late", run -> {
      run.heals.addAll(List.of(3 * SECOND, 12 * SECOND));
      silence(run, 1, 3 * SECOND, 9 * SECOND);
    }, "slow-recovery");
    planted("recovered late, after the next heal only", run -> {
      run.heals.addAll(List.of(3 * SECOND, 5 * SECOND));
      silence(run, 1, 3 * SECOND, 9 * SECOND);
    }, "slow-recovery");
    planted("never recovered", run -> {
      run.heals.add(3 * SECOND);
      silence(run, 1, 3 * SECOND, 90 * SECOND);
    }, "slow-recovery");
    planted("never recovered, on a partition that is not written to", run -> {
      run.heals.add(3 * SECOND);
      run.events.removeIf(e -> e.stream == 1 && e.kind != 'S' && e.kind != 'E');
      run.both(pass -> pass.removeIf(f -> f.partition == 1));
    });
    planted("nobody was sending", run -> run.heals.add(90 * SECOND));
    planted("stuck with a full window, and closed at last", run -> {
      run.heals.add(3 * SECOND);
      stuck(run, 2 * SECOND);
    }, "slow-recovery");
    planted("stuck without anything out", run -> {
      run.heals.add(3 * SECOND);
      run.events.removeIf(e -> e.stamp >= 2 * SECOND && e.kind != 'E');
      run.both(pass -> pass.removeIf(f -> f.offset >= 2000));
    }, "slow-recovery");
    planted("closed soon after the heal", run -> {
      run.heals.add(3 * SECOND);
      stuck(run, 2 * SECOND);
      run.events.get(run.events.size() - 1).stamp = 4 * SECOND;
    });
    planted("killed, and nobody followed", run -> {
      run.heals.add(3 * SECOND);
      stuck(run, 2 * SECOND);
      run.events.remove(run.events.size() - 1);
    }, "slow-recovery");
    planted("records that go anywhere avoid a partition", run -> {
      run.heals.add(3 * SECOND);
      run.goAnywhere();
      silence(run, 1, 3 * SECOND, 19 * SECOND);
    });
    planted("records that go anywhere do not move", run -> {
      run.heals.add(3 * SECOND);
      run.goAnywhere();
      for (int stream = 0; stream < PARTITIONS; stream++) silence(run, stream, 3 * SECOND, 19 * SECOND);
    }, "slow-recovery");
    // beside
    planted("maybe during a fault", run -> {
      run.faults = List.of(fault(2, 4));
      outFor(run, 'M', 3 * SECOND, 4 * SECOND);
    });
    planted("handed over before a fault, given up behind it", run -> {
      run.faults = List.of(fault(2, 4));
      outFor(run, 'M', SECOND, 19 * SECOND);
    });
    planted("given up at once, far from any fault", run -> {
      run.faults = List.of(fault(2, 4), fault(10, 12));
      outFor(run, 'M', 6 * SECOND, 6 * SECOND);
    }, "unexplained-unknown");
    planted("given up before the first fault", run -> {
      run.faults = List.of(fault(2, 4));
      outFor(run, 'M', SECOND, SECOND);
    }, "unexplained-unknown");
    planted("fail behind the last fault", run -> {
      run.faults = List.of(fault(2, 4));
      outFor(run, 'F', 6 * SECOND, 9 * SECOND);
    }, "unexplained-fail");
    planted("maybe without a fault", run -> {
      run.faults = List.of();
      outFor(run, 'M', SECOND, 2 * SECOND);
    }, "unexplained-unknown", "too-many-unknown");
    planted("fail without a fault", run -> {
      run.faults = List.of();
      outFor(run, 'F', SECOND, 2 * SECOND);
    }, "unexplained-fail");
    planted("more maybes than were out", run -> {
      run.faults = List.of(fault(2, 4), fault(10, 12));
      // A few at a time are out, and many in a row are given up.
      for (Event event : run.events) {
        if (event.kind == 'O' && event.stream == 1 && event.counter >= 2100 && event.counter < 2200) event.kind = 'M';
      }
    }, "too-many-unknown");
    planted("as many maybes as were out", run -> {
      run.faults = List.of(fault(2, 4), fault(10, 12));
      stuck(run, 2 * SECOND);
    });
    planted("a fault harms a record with room in its deadline", run -> {
      run.faults = List.of(fault(2, 4));
      run.patient.add(1);
      outFor(run, 'M', 3 * SECOND, 4 * SECOND);
    }, "harmed");
    planted("of two roles one may be harmed", run -> {
      run.faults = List.of(fault(2, 4));
      run.patient.add(2);
      outFor(run, 'F', 3 * SECOND, 4 * SECOND);
    });
    planted("read twice", run -> run.both(pass -> pass.add(10, pass.get(9))), "bad-read", "duplicate");
    System.out.printf("%s chaos check: %d passed, %d failed%n", failed == 0 ? "OK" : "FAILED", passed, failed);
    System.exit(failed == 0 ? 0 : 1);
  }

  private static void swap(Found a, Found b) {
    byte[] value = a.value;
    a.value = b.value;
    b.value = value;
  }

  private static ChaosCheck.Fault fault(long fromSeconds, long untilSeconds) {
    return new ChaosCheck.Fault(fromSeconds * SECOND, untilSeconds * SECOND);
  }

  /** A record that is handed over at one moment gets this outcome at another; it is not read. */
  private static void outFor(Run run, char outcome, long from, long to) {
    long counter = from / 1_000_000;
    Event event = run.of('O', 1, counter);
    event.kind = outcome;
    event.stamp = to + 500;
    run.events.remove(event);
    int at = 0; // events come in the order of their stamps
    while (run.events.get(at).stamp <= event.stamp) at++;
    run.events.add(at, event);
    run.both(pass -> pass.removeIf(f -> f.partition == 1 && f.offset == counter));
  }

  /** From a moment on nothing is handed over but a window full, and that is given up in the end. */
  private static void stuck(Run run, long from) {
    long first = from / 1_000_000;
    List<Event> late = new ArrayList<>();
    run.events.removeIf(e -> e.kind != 'E' && e.counter >= first + 100);
    run.events.removeIf(e -> e.kind == 'O' && e.counter >= first && late.add(e));
    for (Event event : late) {
      event.kind = 'M';
      event.stamp = 19 * SECOND;
    }
    run.events.addAll(run.events.size() - 1, late);
    run.both(pass -> pass.removeIf(f -> f.offset >= first));
  }

  /** What a stream was acked between two moments it is acked at the second. */
  private static void silence(Run run, int stream, long from, long to) {
    for (Event event : run.events) {
      if (event.kind == 'O' && event.stream == stream && event.stamp >= from && event.stamp < to) event.stamp = to;
    }
  }
}
