package io.lora4j.cli;

import io.lora4j.formats.AtomicFile;
import io.lora4j.train.checkpoint.MetricsLog;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import javax.imageio.ImageIO;
import org.knowm.xchart.BitmapEncoder;
import org.knowm.xchart.XYChart;
import org.knowm.xchart.XYChartBuilder;
import org.knowm.xchart.style.Styler;
import org.knowm.xchart.style.markers.SeriesMarkers;
import tools.jackson.core.type.TypeReference;
import tools.jackson.databind.json.JsonMapper;

/** Draws {@code loss.png} from a run's {@code metrics.jsonl}. */
final class LossChart {
    private static final String FILE_NAME = "loss.png";
    private static final JsonMapper JSON = new JsonMapper();

    private LossChart() {}

    /** Returns the lines of a run's metrics; none if the run has not logged a step yet. */
    static List<Map<String, Object>> read(Path outputDir) throws IOException {
        Path file = outputDir.resolve(MetricsLog.FILE_NAME);
        List<Map<String, Object>> lines = new ArrayList<>();
        for (String line : Files.exists(file) ? Files.readAllLines(file) : List.<String>of()) {
            lines.add(JSON.readValue(line, new TypeReference<Map<String, Object>>() {}));
        }
        return lines;
    }

    /**
     * Writes the chart.
     *
     * @return the file; empty if there is nothing to draw, or this Java cannot draw, which is said on {@code console}
     */
    static Optional<Path> write(Path outputDir, Console console) throws IOException {
        List<Map<String, Object>> lines = read(outputDir);
        if (lines.stream().noneMatch(line -> line.containsKey("loss") || line.containsKey("eval_loss"))) {
            return Optional.empty();
        }
        Path file = outputDir.resolve(FILE_NAME);
        try {
            ImageIO.setUseCache(false); // no temporary file
            AtomicFile.write(
                    file, BitmapEncoder.getBitmapBytes(draw(outputDir, lines), BitmapEncoder.BitmapFormat.PNG));
        } catch (LinkageError | InternalError e) {
            console.err()
                    .println("no loss curve: this Java cannot draw text (" + e
                            + "); it needs the module java.desktop, fontconfig and a font");
            return Optional.empty();
        }
        return Optional.of(file);
    }

    private static XYChart draw(Path outputDir, List<Map<String, Object>> lines) {
        XYChart chart = new XYChartBuilder()
                .width(900)
                .height(540)
                .title(String.valueOf(outputDir.toAbsolutePath().normalize().getFileName()))
                .xAxisTitle("step")
                .yAxisTitle("loss (nats per target token)")
                .build();
        chart.getStyler().setLegendPosition(Styler.LegendPosition.InsideNE);
        series(chart, "train", "loss", lines);
        series(chart, "eval", "eval_loss", lines);
        return chart;
    }

    private static void series(XYChart chart, String name, String key, List<Map<String, Object>> lines) {
        List<Number> steps = new ArrayList<>();
        List<Number> values = new ArrayList<>();
        for (Map<String, Object> line : lines) {
            if (line.get(key) instanceof Number value && line.get("step") instanceof Number step) {
                steps.add(step);
                values.add(value);
            }
        }
        if (!steps.isEmpty()) {
            chart.addSeries(name, steps, values)
                    .setMarker(steps.size() < 50 ? SeriesMarkers.CIRCLE : SeriesMarkers.NONE);
        }
    }
}
