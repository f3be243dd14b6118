import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpResponse;
import java.nio.file.Path;
import java.time.Duration;

/** A client of `effnet serve`; it tries again if the server is busy. Only a JDK (11 or newer) is needed.
 *
 *  java examples/java/ServeClient.java http://127.0.0.1:8000 cat.jpg
 */
public class ServeClient {
    static final int TRIES = 5;

    public static void main(String[] args) throws Exception {
        HttpClient client = HttpClient.newBuilder().connectTimeout(Duration.ofSeconds(10)).build();
        for (int place = 1; place < args.length; place++) {
            System.out.println(args[place] + ": " + predict(client, args[0], Path.of(args[place])));
        }
    }

    /** Return the answer to an image as JSON. */
    static String predict(HttpClient client, String server, Path image) throws Exception {
        HttpRequest request = HttpRequest.newBuilder(URI.create(server + "/predict?top=3"))
            .timeout(Duration.ofSeconds(60))
            .header("content-type", "application/octet-stream")
            .POST(HttpRequest.BodyPublishers.ofFile(image))
            .build();
        for (int left = TRIES; ; left--) {
            HttpResponse<String> response = client.send(request, HttpResponse.BodyHandlers.ofString());
            // 503: busy, loading or shutting down; the server says when to try again.
            if (response.statusCode() != 503 || left == 1) {
                return response.body();
            }
            long seconds = response.headers().firstValueAsLong("retry-after").orElse(1);
            Thread.sleep(1000 * seconds);
        }
    }
}
