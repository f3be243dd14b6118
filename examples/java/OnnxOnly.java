import ai.onnxruntime.OnnxTensor;
import ai.onnxruntime.OrtEnvironment;
import ai.onnxruntime.OrtSession;
import java.awt.Graphics2D;
import java.awt.RenderingHints;
import java.awt.image.BufferedImage;
import java.io.File;
import java.nio.FloatBuffer;
import java.util.Map;
import javax.imageio.ImageIO;

/** Run a bundle's model.onnx with ONNX Runtime for Java: model.onnx, resolution, mean and std of config.json, an image.
 *
 *  java -cp onnxruntime.jar examples/java/OnnxOnly.java model.onnx 224 0.485,0.456,0.406 0.229,0.224,0.225 cat.jpg
 *
 *  Java's bilinear resizing is not Pillow's antialiased one: resize beforehand for the same values to the last digit.
 */
public class OnnxOnly {
    public static void main(String[] args) throws Exception {
        int side = Integer.parseInt(args[1]);
        float[] mean = numbers(args[2]);
        float[] std = numbers(args[3]);
        int channels = mean.length;
        BufferedImage image = resized(ImageIO.read(new File(args[4])), side);
        FloatBuffer values = FloatBuffer.allocate(channels * side * side);
        for (int channel = 0; channel < channels; channel++) {
            for (int y = 0; y < side; y++) {
                for (int x = 0; x < side; x++) {
                    int shift = channels == 1 ? 16 : 16 - 8 * channel;
                    float value = (image.getRGB(x, y) >> shift & 255) / 255f;
                    values.put((value - mean[channel]) / std[channel]);
                }
            }
        }
        values.rewind();
        OrtEnvironment environment = OrtEnvironment.getEnvironment();
        try (OrtSession session = environment.createSession(args[0]);
             OnnxTensor input = OnnxTensor.createTensor(environment, values, new long[] {1, channels, side, side});
             OrtSession.Result result = session.run(Map.of(session.getInputNames().iterator().next(), input))) {
            float[] row = ((float[][]) result.get(0).getValue())[0];
            int best = 0;
            for (int label = 1; label < row.length; label++) {
                best = row[label] > row[best] ? label : best;
            }
            System.out.println("class " + best + ": " + row[best]);
        }
    }

    static float[] numbers(String text) {
        String[] parts = text.split(",");
        float[] found = new float[parts.length];
        for (int place = 0; place < parts.length; place++) {
            found[place] = Float.parseFloat(parts[place]);
        }
        return found;
    }

    static BufferedImage resized(BufferedImage image, int side) {
        int size = Math.min(image.getWidth(), image.getHeight());
        int left = (image.getWidth() - size) / 2;
        int top = (image.getHeight() - size) / 2;
        BufferedImage found = new BufferedImage(side, side, BufferedImage.TYPE_INT_RGB);
        Graphics2D graphics = found.createGraphics();
        graphics.setRenderingHint(RenderingHints.KEY_INTERPOLATION, RenderingHints.VALUE_INTERPOLATION_BILINEAR);
        graphics.drawImage(image, 0, 0, side, side, left, top, left + size, top + size, null);
        graphics.dispose();
        return found;
    }
}
