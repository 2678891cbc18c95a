package io.lora4j.cli;

import io.lora4j.formats.AdapterConfig;
import io.lora4j.formats.ModelModule;
import io.lora4j.train.Option;
import io.lora4j.train.Schedule;
import io.lora4j.train.TrainPlan;
import io.lora4j.train.data.Dataset;
import java.io.PrintWriter;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Locale;
import java.util.Map;

/** Shows a run that is only planned: {@code train --dry_run}. */
final class DryRun {
    private static final int BAR = 40;

    private DryRun() {}

    /** Returns everything as one document. */
    static Map<String, Object> report(TrainPlan plan) {
        Map<String, Object> report = new LinkedHashMap<>();
        report.put("dry_run", true);
        report.put("options", plan.settings().toMap());
        report.put("data", data(plan.data()));
        report.put("eval_data", plan.evalData().map(DryRun::data).orElse(null));
        report.put("first_rows", plan.previews().stream().map(DryRun::pieces).toList());
        report.put("adapter", adapter(plan));
        report.put("schedule", schedule(plan));
        Map<String, Object> memory = new LinkedHashMap<>();
        memory.put("parts", plan.memory().parts());
        memory.put("peak", plan.memory().peak());
        memory.put(
                "available",
                plan.memory().available() == Long.MAX_VALUE
                        ? null
                        : plan.memory().available());
        memory.put("fits", plan.memory().fits());
        report.put("memory_bytes", memory);
        report.put("resume_from", plan.resumeFrom().map(Object::toString).orElse(null));
        return report;
    }

    private static Map<String, Object> data(Dataset data) {
        Map<String, Object> report = new LinkedHashMap<>();
        report.put("file", data.file().toString());
        report.put("kind", data.kind());
        report.put("rows_read", data.rowsRead());
        report.put("rows", data.rows().size());
        report.put("rows_cut", data.rowsCut());
        report.put("rows_too_long", data.rowsTooLong());
        report.put("rows_split", data.rowsSplit());
        report.put("rows_dropped", data.rowsDropped());
        report.put("tokens", data.tokens());
        report.put("target_tokens", data.targetTokens());
        report.put("longest", data.longest());
        report.put("lengths", data.histogram());
        return report;
    }

    private static List<Object> pieces(List<Dataset.Piece> row) {
        return row.stream().<Object>map(piece -> piece).toList();
    }

    private static Map<String, Object> adapter(TrainPlan plan) {
        AdapterConfig config = plan.adapter();
        Map<String, Object> report = new LinkedHashMap<>();
        report.put(
                "modules",
                plan.modules().stream().map(module -> module(config, module)).toList());
        report.put("trainable_parameters", plan.trainableParameters());
        report.put("base_parameters", plan.model().parameters());
        report.put("trainable_share", plan.trainableShare());
        return report;
    }

    private static Map<String, Object> module(AdapterConfig config, ModelModule module) {
        Map<String, Object> report = new LinkedHashMap<>();
        report.put("name", module.name());
        report.put("in_features", module.inFeatures());
        report.put("out_features", module.outFeatures());
        report.put("r", config.rank(module.name()));
        report.put("lora_alpha", config.alpha(module.name()));
        report.put("scaling", config.scaling(module.name()));
        return report;
    }

    private static Map<String, Object> schedule(TrainPlan plan) {
        Schedule schedule = plan.schedule();
        Map<String, Object> report = new LinkedHashMap<>();
        report.put("steps", plan.totalSteps());
        report.put("steps_per_epoch", plan.batches().stepsPerEpoch());
        report.put("lr_scheduler_type", Option.show(schedule.type()));
        report.put("warmup_steps", schedule.warmupSteps());
        Map<String, Object> rates = new LinkedHashMap<>();
        shownSteps(schedule).forEach(step -> rates.put(String.valueOf(step), schedule.at(step)));
        report.put("learning_rate_at", rates);
        return report;
    }

    /** The first step, the first after warm-up, the middle of the rest and the last. */
    private static List<Integer> shownSteps(Schedule schedule) {
        int last = schedule.totalSteps();
        int full = Math.min(last, schedule.warmupSteps() + 1);
        return List.of(1, full, full + (last - full) / 2, last).stream()
                .distinct()
                .toList();
    }

    /** Prints it for people. */
    static void print(TrainPlan plan, PrintWriter out) {
        data("data      ", plan.data(), out);
        plan.evalData().ifPresent(eval -> data("eval      ", eval, out));
        adapter(plan, out);
        out.printf(
                Locale.ROOT,
                "steps     %,d, %,d in an epoch; %s schedule, %,d of warm-up%n",
                plan.totalSteps(),
                plan.batches().stepsPerEpoch(),
                Option.show(plan.schedule().type()),
                plan.schedule().warmupSteps());
        for (int step : shownSteps(plan.schedule())) {
            out.printf(
                    Locale.ROOT,
                    "          step %,d: learning rate %s%n",
                    step,
                    Text.number(plan.schedule().at(step)));
        }
        out.println("memory\n" + plan.memory());
        out.println("first rows, «learned»:");
        plan.previews().forEach(row -> out.println("  " + TrainProgress.shown(row)));
        plan.resumeFrom().ifPresent(from -> out.println("goes on from " + from));
        out.println("nothing was trained or written (dry_run)");
        out.flush();
    }

    private static void data(String label, Dataset data, PrintWriter out) {
        out.printf(
                Locale.ROOT,
                "%s%s: %,d rows read (%s), %s; %,d used: %,d tokens, %,d of them targets%n",
                label,
                data.file(),
                data.rowsRead(),
                data.kind(),
                Text.losses(data),
                data.rows().size(),
                data.tokens(),
                data.targetTokens());
        List<Dataset.Lengths> lengths = data.histogram();
        int most = lengths.stream().mapToInt(Dataset.Lengths::rows).max().orElse(1);
        for (Dataset.Lengths range : lengths) {
            int bar = (int) Math.ceilDiv((long) BAR * range.rows(), most);
            out.printf(
                    Locale.ROOT,
                    "          %,6d to %,6d tokens %,8d %s%n",
                    range.from(),
                    range.to(),
                    range.rows(),
                    "#".repeat(bar));
        }
    }

    /** Modules of one name, shape and rank together. */
    private static void adapter(TrainPlan plan, PrintWriter out) {
        out.printf(
                Locale.ROOT,
                "adapter   %,d parameters on %d modules, %.3f %% of all%n",
                plan.trainableParameters(),
                plan.modules().size(),
                100 * plan.trainableShare());
        Map<String, Integer> kinds = new LinkedHashMap<>();
        for (ModelModule module : plan.modules()) {
            String kind = String.format(
                    Locale.ROOT,
                    "%-10s [%d, %d]  r %d, alpha %s",
                    module.name().substring(module.name().lastIndexOf('.') + 1),
                    module.outFeatures(),
                    module.inFeatures(),
                    plan.adapter().rank(module.name()),
                    plan.adapter().alpha(module.name()));
            kinds.merge(kind, 1, Integer::sum);
        }
        kinds.forEach((kind, count) -> out.printf(Locale.ROOT, "          %4d x %s%n", count, kind));
    }
}
