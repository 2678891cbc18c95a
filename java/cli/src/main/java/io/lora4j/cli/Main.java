package io.lora4j.cli;

import io.lora4j.formats.FormatException;
import io.lora4j.kernels.Lora4jException;
import io.lora4j.train.OptionException;
import io.lora4j.train.TrainException;
import java.io.IOException;
import java.nio.file.AccessDeniedException;
import java.nio.file.FileSystemException;
import java.nio.file.NoSuchFileException;
import java.nio.file.NotDirectoryException;
import java.util.Arrays;
import java.util.List;
import java.util.stream.Collectors;
import org.jspecify.annotations.Nullable;
import picocli.CommandLine;
import picocli.CommandLine.Model.CommandSpec;
import picocli.CommandLine.ParameterException;
import picocli.CommandLine.ParseResult;
import picocli.CommandLine.UnmatchedArgumentException;

/**
 * Entry point of the {@code lora4j} command. Exit status: 0 done, 1 failed, 2 wrong use, 130 stopped by Ctrl-C, 141 if the
 * reader of its output has gone.
 *
 * <p>Results go to standard output, everything else to standard error, so that {@code --json} output can be piped.
 */
public final class Main {
    private static final List<TableCommand> COMMANDS = List.of(
            new QuickstartCommand(),
            new TrainCommand(),
            new EvalCommand(),
            new GenerateCommand(),
            new VerifyCommand(),
            new QuantizeCommand(),
            new MergeCommand(),
            new UnmergeCommand(),
            new ExportCommand(),
            new InspectCommand(),
            new DoctorCommand());

    /** What Java makes of bytes that are not text in the locale's encoding. */
    private static final char REPLACEMENT = '\uFFFD';
    /** 128 + SIGPIPE, as a C program that writes to a closed pipe ends. */
    private static final int READER_GONE = 141;

    private Main() {}

    /** Runs the command and ends the process with its exit status. */
    public static void main(String[] args) {
        // The headless toolkit draws the charts; the tokenizer's Rust library is asked not to look for GPUs or the
        // network.
        System.setProperty("java.awt.headless", "true");
        System.exit(run(args, Console.ofSystem()));
    }

    static int run(String[] args, Console console) {
        if (Arrays.stream(args).anyMatch(arg -> arg.indexOf(REPLACEMENT) >= 0)) {
            return fail(
                    console,
                    "an argument has a character that is lost in this locale (its encoding is "
                            + System.getProperty("sun.jnu.encoding") + "); set LC_ALL=C.UTF-8, or use a file",
                    2);
        }
        CommandLine line = commandLine().setOut(console.out()).setErr(console.err());
        try {
            ParseResult parsed = line.parseArgs(normalize(args));
            @Nullable Integer helped = CommandLine.executeHelpRequest(parsed);
            if (helped != null) {
                console.out().flush();
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
        } catch (ParameterException e) {
            return fail(console, e.getMessage() + seeHelp(e.getCommandLine()), 2);
        } catch (OptionException e) {
            return fail(console, String.valueOf(e.getMessage()), 2);
        } catch (Console.OutputException e) {
            return e.readerHasGone() ? READER_GONE : fail(console, String.valueOf(e.getMessage()), 1);
        } catch (FormatException | TrainException | Lora4jException e) {
            return fail(console, String.valueOf(e.getMessage()), 1);
        } catch (FileSystemException e) {
            return fail(console, e.getFile() + ": " + reason(e), 1);
        } catch (IOException | UnsatisfiedLinkError e) {
            return fail(console, String.valueOf(e.getMessage()), 1);
        } catch (OutOfMemoryError e) {
            String message = String.valueOf(e.getMessage());
            boolean heap = message.contains("heap") || message.contains("GC overhead");
            return fail(
                    console,
                    "out of memory (" + message + "): use a smaller batch or max_length, gradient_checkpointing, or "
                            + (heap
                                    ? "give the JVM more heap with LORA4J_JAVA_OPTS=-Xmx…"
                                    : "a machine or limit (ulimit -v, control group) with more memory"),
                    1);
        } catch (RuntimeException e) {
            e.printStackTrace(console.err());
            return fail(
                    console, "internal error: " + e + "; this is a defect, please report it with the lines above", 1);
        }
    }

    private static String reason(FileSystemException e) {
        return switch (e) {
            case NoSuchFileException missing -> "no such file or folder; check the path";
            case AccessDeniedException denied -> "permission denied; check who may read and write it";
            case NotDirectoryException file -> "is not a folder";
            default -> e.getReason() != null ? e.getReason() : e.getClass().getSimpleName();
        };
    }

    private static CommandLine commandLine() {
        CommandSpec top = CommandSpec.create()
                .name("lora4j")
                .mixinStandardHelpOptions(true)
                .version("lora4j " + version());
        top.usageMessage()
                .synopsisHeading("Usage: ")
                .customSynopsis("lora4j COMMAND [OPTIONS]", "       lora4j COMMAND --help")
                .description(
                        "", "Fine-tunes large language models with low-rank adapters. The base model is only read.")
                .commandListHeading("%nCommands:%n")
                .footer(
                        "",
                        "Begin with: lora4j quickstart",
                        "Exit status: 0 done, 1 failed, 2 wrong use, 130 stopped by Ctrl-C.");
        CommandLine line = new CommandLine(top);
        for (TableCommand command : COMMANDS) {
            line.addSubcommand(command.name(), command.spec());
        }
        line.addSubcommand("help", new CommandLine.HelpCommand());
        // A value that begins with @ is a value.
        return line.setUsageHelpAutoWidth(true).setExpandAtFiles(false);
    }

    static String version() {
        String version = Main.class.getPackage().getImplementationVersion();
        return version != null ? version : "(not from a jar)";
    }

    private static TableCommand command(String name) {
        return COMMANDS.stream().filter(c -> c.name().equals(name)).findFirst().orElseThrow();
    }

    /** Every spelling of an option that its table knows becomes the one that the parser knows. */
    private static String[] normalize(String[] args) {
        int at = 0;
        while (at < args.length && args[at].startsWith("-")) {
            at++;
        }
        String name = at < args.length ? args[at] : "";
        if (COMMANDS.stream().noneMatch(c -> c.name().equals(name))) {
            return args;
        }
        String[] head = Arrays.copyOf(args, at + 1);
        String[] options = command(name).normalize(Arrays.copyOfRange(args, at + 1, args.length));
        String[] all = Arrays.copyOf(head, args.length);
        System.arraycopy(options, 0, all, at + 1, options.length);
        return all;
    }

    private static String seeHelp(CommandLine line) {
        return "; see " + line.getCommandSpec().qualifiedName() + " --help";
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
        String what = command.equals("lora4j") && !first.startsWith("-") ? "unknown command " : "unexpected ";
        String commands = COMMANDS.stream().map(TableCommand::name).collect(Collectors.joining(", "));
        return what
                + first
                + (command.equals("lora4j")
                        ? "; expected one of " + commands
                        : "; " + command + " takes options as --name value")
                + seeHelp(e.getCommandLine());
    }

    private static int fail(Console console, String message, int status) {
        console.err().println("lora4j: " + message);
        console.err().flush();
        return status;
    }
}
