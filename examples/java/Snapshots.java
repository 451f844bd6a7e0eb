// SPDX-License-Identifier: Apache-2.0
import com.sun.net.httpserver.HttpExchange;
import com.sun.net.httpserver.HttpServer;
import java.io.IOException;
import java.net.InetAddress;
import java.net.InetSocketAddress;
import java.nio.charset.StandardCharsets;
import java.security.SecureRandom;
import java.util.ArrayList;
import java.util.List;

/**
 * Runs a program's resources around a snapshot, as org.crac does around a checkpoint, when rouse asks for
 * it by HTTP. Nothing but the JDK is needed: Java has no ioctl to be tracked by /dev/sysgenid, and needs none,
 * because the gate stays shut until the after-restore hook has been answered.
 */
public final class Snapshots implements AutoCloseable {
    /** What must not be the same in two clones, or must not be open in a snapshot: org.crac.Resource has the same two methods. */
    public interface Resource {
        /** Close what a copy must not inherit. An exception calls the snapshot off, its message is the reason. */
        default void beforeCheckpoint() throws Exception {}

        /** New keys, new seeds, new identifiers. An exception keeps the network shut. */
        default void afterRestore() throws Exception {}
    }

    private final List<Resource> resources = new ArrayList<>();
    private final HttpServer server;

    /** Listens on the loopback device only; port 0 is any. */
    public Snapshots(int port) throws IOException {
        server = HttpServer.create(new InetSocketAddress(InetAddress.getLoopbackAddress(), port), 0);
        server.createContext("/before-snapshot", x -> answer(x, true));
        server.createContext("/after-restore", x -> answer(x, false));
        server.start();
    }

    /** The resources are called in the order of their registration after a restore, in reverse before a snapshot. */
    public synchronized void register(Resource r) {
        resources.add(r);
    }

    public int port() {
        return server.getAddress().getPort();
    }

    @Override
    public void close() {
        server.stop(0);
    }

    private void answer(HttpExchange x, boolean before) throws IOException {
        int status = 204;
        byte[] body = {};
        try {
            call(before);
        } catch (Exception e) {
            // 503 is "not now": rouse gives the quiesce up with this reason, or keeps the gate shut.
            status = 503;
            body = String.valueOf(e.getMessage()).getBytes(StandardCharsets.UTF_8);
        }
        x.sendResponseHeaders(status, body.length == 0 ? -1 : body.length);
        x.getResponseBody().write(body);
        x.close();
    }

    private synchronized void call(boolean before) throws Exception {
        for (int i = 0; i < resources.size(); i++) {
            if (before) {
                resources.get(resources.size() - 1 - i).beforeCheckpoint();
            } else {
                resources.get(i).afterRestore();
            }
        }
    }

    /** A generator that is new in every clone. A SecureRandom that was made before the snapshot is the twin's too. */
    static final class Tokens implements Resource {
        private volatile SecureRandom random = new SecureRandom();
        private int restored;

        @Override
        public void afterRestore() {
            // The kernel has been reseeded by now, and this one takes its seed from there.
            random = new SecureRandom();
            System.out.println("restored " + ++restored);
        }

        long next() {
            return random.nextLong();
        }
    }

    public static void main(String[] args) throws Exception {
        Snapshots snapshots = new Snapshots(args.length > 0 ? Integer.parseInt(args[0]) : 9000);
        Tokens tokens = new Tokens();
        snapshots.register(tokens);
        snapshots.register(new Resource() {
            @Override
            public void beforeCheckpoint() throws Exception {
                if (System.getenv("BUSY") != null) {
                    throw new Exception("a report is being written");
                }
            }
        });
        System.out.println("listening on " + snapshots.port() + ", token " + tokens.next());
        Thread.currentThread().join();
    }
}
