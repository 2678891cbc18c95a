package io.lora4j.kernels;

/** Loads the native library in a process of its own and prints what came of it; twice, because a failure must be told again. */
final class LoadProbe {
    private LoadProbe() {}

    public static void main(String[] args) {
        for (int attempt = 0; attempt < 2; attempt++) {
            try {
                System.out.println("loaded " + Device.library().path());
            } catch (UnsatisfiedLinkError e) {
                System.out.println("failed " + e.getMessage());
            }
        }
    }
}
