import java.math.BigInteger;
import java.security.MessageDigest;
import java.util.*;
import java.util.concurrent.*;
import java.util.stream.*;

/** Known results, hot enough for both compilers of the virtual machine, in threads and with collections. */
public class Work {
    interface Shape { double area(); }
    record Circle(double r) implements Shape { public double area() { return r * r * 3; } }
    record Box(double w, double h) implements Shape { public double area() { return w * h; } }

    static long mixed(long seed, int rounds) {
        long h = seed;
        for (int i = 0; i < rounds; i++) { h ^= h << 13; h ^= h >>> 7; h ^= h << 17; h += i; }
        return h;
    }

    static String one(int n) throws Exception {
        StringBuilder out = new StringBuilder();
        Random random = new Random(n);
        double sum = 0;
        for (int i = 0; i < 400000; i++) {
            Shape s = (random.nextInt() & 1) == 0 ? new Circle(i % 100) : new Box(i % 10, i % 7);
            sum += s.area();
        }
        out.append((long) sum).append(' ').append(mixed(n, 3000000)).append(' ');
        Map<String, Integer> words = new TreeMap<>();
        for (int i = 0; i < 100000; i++) words.merge(Integer.toString(random.nextInt(3000), 36), 1, Integer::sum);
        out.append(words.hashCode()).append(' ');
        out.append(IntStream.range(0, 200000).filter(i -> i % 3 == 0).mapToLong(i -> (long) i * i).sum()).append(' ');
        int caught = 0;
        for (int i = 0; i < 20000; i++) {
            try { if (i % 3 == 0) throw new IllegalStateException(); Object o = i % 5 == 1 ? null : "x"; caught += o.hashCode() & 1; }
            catch (NullPointerException e) { caught += 2; } catch (IllegalStateException e) { caught += 3; }
        }
        out.append(caught).append(' ').append(BigInteger.TWO.pow(3000 + n).mod(BigInteger.valueOf(1000000007L)));
        byte[] data = new byte[300000];
        random.nextBytes(data);
        out.append(HexFormat.of().formatHex(MessageDigest.getInstance("SHA-256").digest(data)));
        return out.toString();
    }

    public static void main(String[] arguments) throws Exception {
        ExecutorService pool = Executors.newFixedThreadPool(4);
        List<Future<String>> parts = new ArrayList<>();
        for (int i = 0; i < 8; i++) { int n = i; parts.add(pool.submit(() -> one(n))); }
        StringBuilder all = new StringBuilder();
        for (Future<String> part : parts) all.append(part.get());
        pool.shutdown();
        System.out.println(HexFormat.of().formatHex(MessageDigest.getInstance("SHA-256").digest(all.toString().getBytes())));
    }
}
