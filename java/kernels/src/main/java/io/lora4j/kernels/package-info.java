/**
 * The compute kernels of lora4j: devices, queues, tensors, base weights and the operations on them.
 *
 * <p>This is the only module that makes restricted calls of the Foreign Function &amp; Memory API. Programs grant it native
 * access with {@code --enable-native-access=io.lora4j.kernels} (module path) or {@code ALL-UNNAMED} (class path).
 *
 * <p>A product with a frozen weight and its adapter:
 *
 * {@snippet :
 * try (Device device = Device.cpu();
 *         Queue queue = Queue.create(device);
 *         Arena model = Arena.ofShared();
 *         Weight weight = Weight.pack(queue, Tensor.of(mapped, DType.BF16, n, k));
 *         Arena step = Arena.ofConfined()) {
 *     Tensor y = Tensor.allocate(step, DType.F32, m, n);
 *     Lora lora = Lora.builder(step)
 *             .x(x)
 *             .projection(weight).adapter(a, b, 0).y(y).s(Tensor.allocate(step, DType.F32, m, r))
 *             .scaling(Tensor.ofFloats(step, 2))
 *             .build();
 *     LoraOps.forward(queue, lora);
 * }
 * }
 *
 * <p>Every operation has a class of arguments ({@link io.lora4j.kernels.Lora}) and a class that runs them
 * ({@link io.lora4j.kernels.LoraOps}), named as in the C ABI, {@code lora4j.h}. Arguments fix shapes, dtypes and addresses; what
 * changes between steps (seeds, steps, learning rates, offsets, token ids) lies in tensors that the caller changes in place.
 *
 * <p>Shape letters: M tokens (rows), K in-features, N out-features, R rank, B sequences, H heads, G projections of a group, D head
 * dimension, V vocabulary. How errors are told: {@link io.lora4j.kernels.Lora4jException}. Nulls are refused unless a parameter is
 * marked {@code @Nullable}.
 */
@NullMarked
package io.lora4j.kernels;

import org.jspecify.annotations.NullMarked;
