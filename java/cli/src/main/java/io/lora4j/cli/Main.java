package io.lora4j.cli;

import io.lora4j.formats.FormatException;
import io.lora4j.kernels.Lora4jException;
import io.lora4j.train.OptionException;
import io.lora4j.train.TrainException;
import java.io.IOException;
import java.nio.file.FileSystemException;
import java.util.List;
import org.jspecify.annotations.Nullable;
import picocli.CommandLine;
import picocli.CommandLine.Model.CommandSpec;
import picocli.CommandLine.ParameterException;
import picocli.CommandLine.ParseResult;
import picocli.CommandLine.UnmatchedArgumentException;

/**
 * Entry point of the {@code lora4j} command. Exit status: 0 done, 1 failed, 2 wrong use, 130 stopped by Ctrl-C.
 *
 * <p>Results go to standard output, everything else to standard error, so that {@code --json} output can be piped.
 */
public final class Main {
    private static final List<TableCommand> COMMANDS = List.of(
            new QuickstartCommand(),
            new TrainCommand(),
            new EvalCommand(),
            new GenerateCommand(),
            new InspectCommand(),
            new DoctorCommand());

    private Main() {}

    /** Runs the command and ends the process with its exit status. */
    public static void main(String[] args) {
        // The headless toolkit draws the charts; the tokenizer's Rust library is asked not to look for GPUs or the network.
        System.setProperty("java.awt.headless", "true");
        System.exit(run(args, Console.ofSystem()));
    }

    static int run(String[] args, Console console) {
        CommandLine line = commandLine();
        try {
            ParseResult parsed = line.parseArgs(args);
            @Nullable Integer helped = CommandLine.executeHelpRequest(parsed);
            if (helped != null) {
                return helped;
            }
            if (!parsed.hasSubcommand()) {
                line.usage(console.err());
                return 2;
            }
            ParseResult sub = parsed.subcommand();
            return command(sub.commandSpec().name()).run(sub, console);
        } catch (UnmatchedArgumentException e) {
            return fail(console, unmatched(e), 2);
        } catch (ParameterException | OptionException e) {
            return fail(console, String.valueOf(e.getMessage()), 2);
        } catch (FormatException | TrainException | Lora4jException e) {
            return fail(console, String.valueOf(e.getMessage()), 1);
        } catch (FileSystemException e) {
            String reason = e.getReason() != null ? e.getReason() : e.getClass().getSimpleName();
            return fail(console, e.getFile() + ": " + reason, 1);
        } catch (IOException | UnsatisfiedLinkError e) {
            return fail(console, String.valueOf(e.getMessage()), 1);
        } catch (OutOfMemoryError e) {
            return fail(
                    console,
                    "out of memory (" + e.getMessage() + "): use a smaller batch or max_length, gradient_checkpointing, or give"
                            + " the JVM more heap with LORA4J_JAVA_OPTS=-Xmx…",
                    1);
        } catch (RuntimeException e) {
            e.printStackTrace(console.err());
            return fail(console, "internal error: " + e + "; this is a defect, please report it with the lines above", 1);
        }
    }

    private static CommandLine commandLine() {
        CommandSpec top = CommandSpec.create()
                .name("lora4j")
                .mixinStandardHelpOptions(true)
                .version("lora4j " + version());
        top.usageMessage()
                .description("Fine-tunes large language models with low-rank adapters. The base model is only ever read.")
                .footer("", "Begin with: lora4j quickstart");
        CommandLine line = new CommandLine(top);
        for (TableCommand command : COMMANDS) {
            line.addSubcommand(command.name(), command.spec());
        }
        return line.setUsageHelpAutoWidth(true).setCaseInsensitiveEnumValuesAllowed(false);
    }

    static String version() {
        String version = Main.class.getPackage().getImplementationVersion();
        return version != null ? version : "(not from a jar)";
    }

    private static TableCommand command(String name) {
        return COMMANDS.stream().filter(c -> c.name().equals(name)).findFirst().orElseThrow();
    }

    /** An unknown option gets the option table's message, which has the nearest name; anything else picocli's. */
    private static String unmatched(UnmatchedArgumentException e) {
        String first = e.getUnmatched().getFirst();
        String command = e.getCommandLine().getCommandSpec().name();
        if (first.startsWith("-") && COMMANDS.stream().anyMatch(c -> c.name().equals(command))) {
            try {
                command(command).table().find(first.replaceFirst("=.*", ""));
            } catch (OptionException unknown) {
                return String.valueOf(unknown.getMessage());
            }
        }
        return e.getMessage() + (command.equals("lora4j") ? "; see lora4j --help" : "; see lora4j " + command + " --help");
    }

    private static int fail(Console console, String message, int status) {
        console.err().println("lora4j: " + message);
        console.err().flush();
        return status;
    }
}
