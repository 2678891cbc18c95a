/*
 * lora4j.h — the C ABI of lora4j: compute kernels for parameter-efficient fine-tuning.
 *
 * Copyright the lora4j authors. SPDX-License-Identifier: Apache-2.0
 *
 * Shape letters used everywhere:
 *   M tokens (rows)   K in-features   N out-features   R rank   B sequences   H heads   G projections of a group
 *   D head dimension  V vocabulary    T length of a sequence
 *
 * Conventions
 *   - Every fallible function returns an l4j_status; the text goes into the caller's l4j_error (may be NULL). The library never
 *     prints, aborts, exits or throws.
 *   - Memory belongs to the caller unless a handle is documented to own it. An operation allocates nothing: scratch is the
 *     caller's workspace, its size comes from l4j_<op>_workspace(). A workspace may be uninitialised, needs 64-byte alignment
 *     and holds nothing between calls.
 *   - What changes between steps (seeds, steps, learning rates, scales, offsets, lengths, token ids) is read through pointers
 *     when the operation runs; shapes, dtypes, ranks and addresses are fixed in the argument struct. One argument struct serves
 *     every step.
 *   - Structs that start with `struct_size` are versioned: set it to sizeof of the struct you compiled with and zero the rest
 *     before filling it in. Reserved fields must be zero.
 *   - Rows are strided by elements. Inputs take any strides (0 and negative ones too); outputs need an innermost stride of 1 and
 *     positive strides by which no rows overlap, unless the operation says otherwise. Data may be unaligned to anything but its element size.
 *   - Outputs must not overlap inputs unless the operation says that they may be the same.
 *   - A tensor or weight has at most 2^40 elements, those that a stride of 0 repeats included; a larger one is L4J_EINVAL.
 *   - Threads: a queue runs one operation at a time (a second caller gets L4J_EBUSY). Devices and weights may be used by any
 *     number of queues and threads at once. A queue's threads block all signals and do not survive fork(): in a child process
 *     such a queue can only be destroyed (L4J_EINVAL otherwise); it creates queues of its own.
 *   - Operations run in the default floating-point environment (round to nearest, subnormals kept) and restore the caller's.
 *
 * On a GPU (a device of type L4J_DEVICE_CUDA)
 *   - Calls only enqueue work on the queue's stream: nothing is allocated, copied from the host's memory or waited for, so a call can
 *     be captured in a CUDA graph. The caller's current device is restored. Argument structs, arrays of descriptors and shapes lie
 *     in the host's memory and may go when the call returns; the data of tensors and every pointer to what changes between steps
 *     must be the GPU's, else L4J_EDEVICE.
 *   - A value that is found wrong when the operation runs (an id, a position, a segment, a hyper-parameter) is reported by the next
 *     l4j_queue_synchronize or l4j_queue_poll, once, with the first such value; the outputs of that operation are then undefined,
 *     but nothing outside them is written.
 *   - Activations and their gradients (x, y, s, dy, dx, q, k, v, o, h, ...) are F32, F16 or BF16, all of one dtype in a call; adapters
 *     (a, b) may have any of the three. Sums, statistics, gradients of parameters and optimizer state (da, db, dweight, lse, rstd,
 *     loss, adamw) are F32. On the CPU all of them are F32.
 *
 * Numerics (the contract of every CPU tier; see native/NUMERICS.md)
 *   fp32 results have the same bits on every tier, for any number of threads and any batch: each output of a product is one
 *   chain of fused multiply-adds in the order of its contraction index; sums are 16 interleaved lanes, folded 8, 4, 2, 1; exp and
 *   log are one fixed polynomial each; no reciprocal or square-root approximations.
 *   fp32 is the default. The products of l4j_lora and l4j_linear_cross_entropy take another precision where the caller asks for
 *   it: see L4J_COMPUTE_BF16. Its results too have the same bits on every tier.
 */
#ifndef LORA4J_H
#define LORA4J_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#if defined(__GNUC__)
#define L4J_API __attribute__((visibility("default")))
#else
#define L4J_API
#endif

/** Version of this ABI; the shared library's SONAME is L4J_ABI_MAJOR. While it is 0, L4J_ABI_MINOR must match too. */
#define L4J_ABI_MAJOR 0
#define L4J_ABI_MINOR 2
#define L4J_ABI_VERSION (L4J_ABI_MAJOR * 1000 + L4J_ABI_MINOR)

/* ------------------------------------------------------------------------------------------------ status and errors */

typedef int32_t l4j_status;

enum {
    L4J_OK = 0,
    L4J_EINVAL = 1,     /**< an argument is wrong; the message names it, what was found and what was expected */
    L4J_ENOTSUP = 2,    /**< valid, but this build, device or dtype does not do it (yet) */
    L4J_ENOMEM = 3,     /**< an allocation failed */
    L4J_EWORKSPACE = 4, /**< the workspace is NULL, misaligned or too small */
    L4J_EALIGN = 5,     /**< data is not aligned to its element size */
    L4J_EBUSY = 6,      /**< the queue is in use by another thread, or the device still has queues or weights */
    L4J_EDEVICE = 7,    /**< a tensor or handle belongs to another device */
    L4J_EABI = 8,       /**< struct_size is not one this library knows */
    L4J_ENUMERIC = 9,   /**< a non-finite value where a finite one is required */
    L4J_ECANCELED = 10, /**< given up on request */
    L4J_EINTERNAL = 11, /**< a defect of lora4j; please report it with the message */
    L4J_ECUDA = 12      /**< the CUDA driver or runtime failed; the message has its text. Later calls may fail too. */
};

/** Filled in by a call that fails; untouched by one that succeeds. `message` is NUL-terminated UTF-8. */
typedef struct l4j_error {
    int32_t status;
    char message[508];
} l4j_error;

/** "L4J_EINVAL" for L4J_EINVAL, and so on; "unknown" otherwise. Static memory. */
L4J_API const char *l4j_status_name(l4j_status status);

/** L4J_ABI_VERSION of the library that is loaded. Compare it with the constant you were compiled with. */
L4J_API uint32_t l4j_abi_version(void);

/** Release of the library, such as "0.1.0". Static memory. */
L4J_API const char *l4j_version_string(void);

/** One line about the build: release, ABI, compiler, tiers compiled in. Static memory. */
L4J_API const char *l4j_build_info(void);

/* ------------------------------------------------------------------------------------------------------------ tensors */

enum {
    L4J_F32 = 1,
    L4J_F16 = 2,
    L4J_BF16 = 3,
    L4J_F64 = 4,
    L4J_I8 = 5,
    L4J_U8 = 6,
    L4J_I16 = 7,
    L4J_I32 = 8,
    L4J_I64 = 9,
    L4J_BOOL = 10
};

enum { L4J_DEVICE_CPU = 1, L4J_DEVICE_CUDA = 2 };

/** A view of caller-owned memory. Sizes and strides in elements; unused trailing dimensions are ignored. Frozen for ever. */
typedef struct l4j_tensor {
    void *data;
    int32_t dtype;       /**< L4J_F32, ... */
    int32_t device_type; /**< L4J_DEVICE_CPU, ... */
    int32_t device_id;
    int32_t ndim; /**< 1 to 4 */
    int64_t shape[4];
    int64_t stride[4];
    int64_t reserved; /**< zero */
} l4j_tensor;

/* ------------------------------------------------------------------------------------------------- devices and queues */

typedef struct l4j_device l4j_device;
typedef struct l4j_queue l4j_queue;
typedef struct l4j_weight l4j_weight;

/** ISA tiers of the CPU, in ascending order. Every tier gives the same bits. L4J_ISA_AVX512_BF16 and L4J_ISA_AMX_BF16 add an instruction
    for products of L4J_COMPUTE_BF16 to L4J_ISA_AVX512; below them such products run on fp32 multiply-adds, no faster than
    L4J_COMPUTE_F32. */
enum {
    L4J_ISA_AUTO = 0,
    L4J_ISA_REF = 1,         /**< plain C, any CPU */
    L4J_ISA_AVX2 = 2,        /**< AVX2, FMA, F16C */
    L4J_ISA_AVX512 = 3,      /**< AVX-512 F, BW, DQ, VL */
    L4J_ISA_AVX512_BF16 = 4, /**< AVX512_BF16: VDPBF16PS */
    L4J_ISA_AMX_BF16 = 5,    /**< AMX-BF16: TDPBF16PS; Linux must have granted the process its tiles (arch_prctl) */
    /* Instructions for products of L4J_COMPUTE_INT8; named by l4j_device_query, not caps: they are used unless a cap of L4J_ISA_AVX512 or
       below (the first) or of L4J_ISA_AVX512_BF16 or below (the second) takes instructions from the processor. */
    L4J_ISA_AVX512_VNNI = 6, /**< AVX512_VNNI: VPDPBUSD */
    L4J_ISA_AMX_INT8 = 7,    /**< AMX-INT8: TDPBSSD where many rows and the format are worth it, else VPDPBUSD */
    L4J_ISA_REF64 =
        100, /**< the accuracy oracle: `ref` in fp64; activations, adapters and gradients are L4J_F64 tensors */
    L4J_ISA_CUDA = 200 /**< a GPU; named by l4j_device_query, not a cap */
};

typedef struct l4j_device_options {
    uint32_t struct_size;
    int32_t device_type; /**< L4J_DEVICE_CPU or L4J_DEVICE_CUDA */
    int32_t device_id;   /**< 0 on the CPU; the ordinal of the GPU as CUDA counts them */
    int32_t
        max_isa; /**< cap of isa, bf16_isa and int8_isa of the CPU; L4J_ISA_AUTO takes the best, and is what a GPU has. The environment
                        variable LORA4J_MAX_ISA (ref|avx2|avx512|avx512-bf16|amx-bf16) caps further. */
    int64_t reserved[4];
} l4j_device_options;

typedef struct l4j_device_info {
    uint32_t struct_size; /**< set by the caller */
    int32_t device_type;
    int32_t device_id;
    int32_t isa;          /**< tier in use, L4J_ISA_AVX512 at most */
    int32_t best_isa;     /**< best tier that CPU, operating system and build allow */
    int32_t logical_cpus; /**< CPUs this process may run on (affinity mask, cgroup quota); multiprocessors of a GPU */
    char isa_name[16];    /**< "ref", "avx2", "avx512", "ref64"; "sm_90" for a GPU of compute capability 9.0 */
    char cpu_name[64];    /**< the processor's brand string */
    int64_t memory_bytes; /**< physical memory, or the cgroup's limit where that is lower; the memory of a GPU */
    int32_t bf16_isa;     /**< tier that runs the products of L4J_COMPUTE_BF16; `isa` where no instruction helps */
    int32_t int8_isa;     /**< tier that runs the products of L4J_COMPUTE_INT8; `isa` where no instruction helps */
    int64_t reserved[3];
} l4j_device_info;

/** Opens the CPU, or a GPU when `options` asks for one. The first GPU loads liblora4j_cuda.so: from the environment's
    LORA4J_CUDA_LIBRARY (a path), else from the folder of this library, else as the system finds it; L4J_ENOTSUP says what is
    missing. `options` may be NULL = the CPU. An unknown LORA4J_MAX_ISA is L4J_EINVAL; a tier above what the CPU has is capped. */
L4J_API l4j_status l4j_device_open(const l4j_device_options *options, l4j_device **device, l4j_error *error);
/** L4J_EBUSY, and nothing is freed, while queues, weights or memory of the device exist. NULL is fine. */
L4J_API l4j_status l4j_device_close(l4j_device *device, l4j_error *error);
L4J_API l4j_status l4j_device_query(const l4j_device *device, l4j_device_info *info, l4j_error *error);

/** Memory of the device, uninitialised, aligned to 64 bytes or more. A block of 4 MiB or more of the CPU starts at a multiple of
    2 MiB and asks the system for huge pages. 0 bytes give a block that can be freed. L4J_ENOMEM where there is not enough. */
L4J_API l4j_status l4j_memory_allocate(l4j_device *device, size_t bytes, void **memory, l4j_error *error);
/** Frees what l4j_memory_allocate gave for the same device; nothing may use it any more. NULL is fine. Until then the device cannot
    be closed. */
L4J_API l4j_status l4j_memory_free(l4j_device *device, void *memory, l4j_error *error);

enum { L4J_QUEUE_STREAM = 1 /**< flag: `stream` is the caller's CUDA stream (NULL is CUDA's default stream) */ };

typedef struct l4j_queue_options {
    uint32_t struct_size;
    int32_t threads; /**< threads that compute, the caller's included; 0 = CPUs this process may run on */
    int32_t
        spin_us; /**< how long an idle worker spins before it sleeps, in µs; 0 = default, negative = sleep at once */
    uint32_t flags; /**< L4J_QUEUE_STREAM on a GPU, else 0 */
    void *stream;   /**< cudaStream_t with that flag, else NULL: the queue makes a non-blocking stream of its own */
    int64_t reserved[3];
} l4j_queue_options;

/** Creates a queue with its own pool of threads, or for a stream of a GPU. `options` may be NULL. Results never depend on the number
    of threads. The caller's stream outlives the queue. */
L4J_API l4j_status l4j_queue_create(l4j_device *device, const l4j_queue_options *options, l4j_queue **queue,
                                    l4j_error *error);
/** Stops the threads, or waits for the stream, and frees the queue. L4J_EBUSY, and nothing is freed, while an operation runs. NULL
    is fine. */
L4J_API l4j_status l4j_queue_destroy(l4j_queue *queue, l4j_error *error);
/** Waits until everything given to the queue so far, by any thread, has run; reports the first asynchronous failure. On the CPU
    calls are synchronous: only what another thread has begun is waited for. */
L4J_API l4j_status l4j_queue_synchronize(l4j_queue *queue, l4j_error *error);
/** Like l4j_queue_synchronize without waiting: L4J_EBUSY while work is running. */
L4J_API l4j_status l4j_queue_poll(l4j_queue *queue, l4j_error *error);
/** Number of threads of the queue; multiprocessors of a GPU. */
L4J_API int32_t l4j_queue_threads(const l4j_queue *queue);

/** Copies bytes in the queue's order between any two memories, the host's and the devices'. From or to a GPU the call may return
    before the copy is done: the host's memory must stay until the queue has passed. The two must not overlap. */
L4J_API l4j_status l4j_memory_copy(l4j_queue *queue, void *to, const void *from, size_t bytes, l4j_error *error);
/** Sets bytes of the device's memory to `value` (0 to 255), in the queue's order. */
L4J_API l4j_status l4j_memory_fill(l4j_queue *queue, void *memory, int32_t value, size_t bytes, l4j_error *error);

typedef struct l4j_event l4j_event;

/** A point in a queue's order, to wait for and to take the time between two. One thread at a time may use an event. */
L4J_API l4j_status l4j_event_create(l4j_device *device, l4j_event **event, l4j_error *error);
/** NULL is fine. */
L4J_API l4j_status l4j_event_destroy(l4j_event *event, l4j_error *error);
/** Puts the event behind everything given to the queue so far. */
L4J_API l4j_status l4j_event_record(l4j_event *event, l4j_queue *queue, l4j_error *error);
/** Lets what is given to the queue from now on wait for the event, which may be of another queue of the device. */
L4J_API l4j_status l4j_event_wait(l4j_event *event, l4j_queue *queue, l4j_error *error);
/** Waits until the event's queue has come to it. */
L4J_API l4j_status l4j_event_synchronize(l4j_event *event, l4j_error *error);
/** Milliseconds from `start` to `end`, both passed. */
L4J_API l4j_status l4j_event_elapsed(l4j_event *start, l4j_event *end, float *milliseconds, l4j_error *error);

typedef struct l4j_graph l4j_graph;

/** Begins to record what is given to the queue, a GPU's, into a graph instead of running it. */
L4J_API l4j_status l4j_graph_begin(l4j_queue *queue, l4j_error *error);
/** Ends the recording. A failed call in between makes the graph invalid, and this call fails too. */
L4J_API l4j_status l4j_graph_end(l4j_queue *queue, l4j_graph **graph, l4j_error *error);
/** Runs the recorded work again on a queue of the same device. Everything that it uses must still be there. */
L4J_API l4j_status l4j_graph_launch(l4j_graph *graph, l4j_queue *queue, l4j_error *error);
/** NULL is fine. */
L4J_API l4j_status l4j_graph_destroy(l4j_graph *graph, l4j_error *error);

/* -------------------------------------------------------------------------------------------------------- base weights */

/**
 * How the values of a base weight [N, K] are stored. w is the value that operations compute with, in fp32; every step is rounded to
 * fp32 and nothing is fused, as the format's owner does it. The parts of each scheme are listed as role: dtype [shape]; "float" is F32,
 * F16 or BF16. Parts are contiguous; [A] may also be given as [A, 1].
 *
 * DENSE      VALUES: float [N, K], innermost stride 1, rows may be padded.
 * NF4, FP4   bitsandbytes, 4 bits, blocks of 32 to 4096 (a power of two) over the flattened weight, so that blocks may straddle rows:
 *            VALUES: U8 [ceil(N·K / 2)], the even element in the high nibble;  SCALES (absmax): F32 [ceil(N·K / block)];
 *            BLOCK_SIZE: I64 [1];  QUANT_MAP: F32 [16], optional.  w = map[q] · absmax.
 *            Double quantization: SCALES: U8 [blocks];  NESTED_SCALES: F32 [ceil(blocks / nested block)];  NESTED_QUANT_MAP: F32 [256];
 *            NESTED_OFFSET: F32 [1];  NESTED_BLOCK_SIZE: I64 [1].  absmax = nested map[SCALES] · nested scale + offset.
 * LLM_INT8   bitsandbytes: VALUES: I8 [N, K];  SCALES (SCB): F32 [N].  w = (q · SCB) · 0.007874015718698502, the fp32 nearest to 1 / 127.
 * INT8       VALUES: I8 [N, K];  SCALES: float [N] or [N, groups], groups divides K.  w = q · scale.
 * GPTQ, GPTQ_V2   4 bits: VALUES (qweight): I32 [K / 8, N];  ZEROS (qzeros): I32 [groups, ceil(N / 8)];  SCALES: float [groups, N];
 *            GROUP_INDEX (g_idx): I32 [K], optional where groups divides K.  w = (q − zero) · scale; GPTQ (version 1) stores zero − 1.
 * AWQ        4 bits, GEMM layout: VALUES: I32 [K, N / 8];  ZEROS: I32 [groups, N / 8];  SCALES: float [groups, N]; groups divides K.
 * FP8_E4M3   VALUES: U8 [N, K];  SCALES: float [1], [N] or [ceil(N / 128), ceil(K / 128)].  w = value · scale.
 *            (GPTQ and AWQ: L4J_WEIGHT_PACK turns the words round; borrowed weights are read word by word, many times slower.)
 * GGUF_*     256 + the ggml type: VALUES: U8 [N, bytes of a row]; K is a multiple of the block, 32 or (_K) 256 values. ggml-quants.c.
 */
enum {
    L4J_SCHEME_DENSE = 1,
    L4J_SCHEME_NF4 = 2,
    L4J_SCHEME_FP4 = 3,
    L4J_SCHEME_LLM_INT8 = 4,
    L4J_SCHEME_INT8 = 5,
    L4J_SCHEME_GPTQ = 6,
    L4J_SCHEME_GPTQ_V2 = 7,
    L4J_SCHEME_AWQ = 8,
    L4J_SCHEME_FP8_E4M3 = 9,
    L4J_SCHEME_GGUF_Q4_0 = 258,
    L4J_SCHEME_GGUF_Q4_1 = 259,
    L4J_SCHEME_GGUF_Q5_0 = 262,
    L4J_SCHEME_GGUF_Q5_1 = 263,
    L4J_SCHEME_GGUF_Q8_0 = 264,
    L4J_SCHEME_GGUF_Q2_K = 266,
    L4J_SCHEME_GGUF_Q3_K = 267,
    L4J_SCHEME_GGUF_Q4_K = 268,
    L4J_SCHEME_GGUF_Q5_K = 269,
    L4J_SCHEME_GGUF_Q6_K = 270,
    L4J_SCHEME_GGUF_IQ4_NL = 276,
    L4J_SCHEME_GGUF_MXFP4 = 295
};
/** What a part of a weight is; see the schemes. */
enum {
    L4J_ROLE_VALUES = 1,
    L4J_ROLE_SCALES = 2,
    L4J_ROLE_ZEROS = 3,
    L4J_ROLE_GROUP_INDEX = 4,
    L4J_ROLE_BLOCK_SIZE = 5,
    L4J_ROLE_QUANT_MAP = 6,
    L4J_ROLE_NESTED_SCALES = 7,
    L4J_ROLE_NESTED_QUANT_MAP = 8,
    L4J_ROLE_NESTED_OFFSET = 9,
    L4J_ROLE_NESTED_BLOCK_SIZE = 10
};
enum {
    L4J_WEIGHT_BORROW =
        1, /**< use the caller's memory, the device's, as it is; it must outlive the handle. L4J_ENOTSUP for
                                quantized weights of a GPU */
    L4J_WEIGHT_PACK =
        2 /**< make a copy in the layout of the kernels; the caller's memory may go afterwards. For a GPU dense values may be
                                the host's or the GPU's, the parts of a quantized weight are the host's */
};
enum { L4J_WEIGHT_ALLOW_NONFINITE = 1 /**< flag: do not check for NaN and Inf */ };

/**
 * The precision of products (`fpmath mode` of oneDNN). L4J_COMPUTE_BF16 rounds both operands of every product of the operation to
 * bf16 (nearest, ties to even), multiplies them exactly and accumulates in fp32; inputs, outputs and all other arithmetic stay
 * fp32. It runs on every CPU, faster where l4j_device_info.bf16_isa names an instruction for it; L4J_ENOTSUP on a GPU. NUMERICS.md has the
 * order of the sums.
 */
enum {
    L4J_COMPUTE_F32 = 0,
    L4J_COMPUTE_BF16 = 1,
    /** For inference: l4j_lora_forward on GGUF weights alone, on the CPU. x is rounded to signed bytes with one scale for 32 columns, as
        ggml rounds activations to Q8_0, and multiplied with the codes of the weight in integers; adapters stay fp32. The relative error
        of a result is some 5e-3. Backward is L4J_ENOTSUP: there is no gradient of what is computed. NUMERICS.md has the order of
        the sums. */
    L4J_COMPUTE_INT8 = 2
};

/** A base weight [N, K], dense or quantized: a scheme and a list of {role, tensor}. */
typedef struct l4j_weight_options {
    uint32_t struct_size;
    int32_t scheme; /**< L4J_SCHEME_...; it says which parts there are */
    int32_t mode;   /**< L4J_WEIGHT_BORROW or L4J_WEIGHT_PACK */
    uint32_t flags;
    int64_t rows; /**< N */
    int64_t cols; /**< K */
    int32_t part_count;
    int32_t compute; /**< L4J_COMPUTE_F32, or L4J_COMPUTE_BF16 to pack dense values rounded to bf16, as of dtype BF16 */
    const int32_t *part_roles;     /**< [part_count], each role once */
    const l4j_tensor *part_values; /**< [part_count] */
    int64_t reserved[4];
} l4j_weight_options;

typedef struct l4j_weight_info {
    uint32_t struct_size; /**< set by the caller */
    int32_t scheme;
    int32_t mode;
    int32_t dtype; /**< of dense values as held: given, or BF16 packed for L4J_COMPUTE_BF16; 0 for other schemes */
    int64_t rows;
    int64_t cols;
    int64_t bytes_held; /**< memory that the handle owns; 0 when it borrows */
    int32_t compute;    /**< what its layout serves */
    int32_t reserved0;
    int64_t reserved[3];
} l4j_weight_info;

/** Creates an immutable weight. A value that is NaN or Inf is L4J_ENUMERIC with its row and column, unless the flag allows it. `queue`
    lends its threads for checking and packing; NULL uses the calling thread. Codes stay as they are stored: operations decode them
    where they read them, with the same bits as from the decoded weight. (A GPU rounds decoded values to the dtype of 16-bit activations,
    and has kernels for few rows whose sums have another order: NUMERICS.md.) */
L4J_API l4j_status l4j_weight_create(l4j_device *device, l4j_queue *queue, const l4j_weight_options *options,
                                     l4j_weight **weight, l4j_error *error);
/** The caller makes sure that no operation uses the weight any more. NULL is fine. */
L4J_API l4j_status l4j_weight_destroy(l4j_weight *weight, l4j_error *error);
L4J_API l4j_status l4j_weight_query(const l4j_weight *weight, l4j_weight_info *info, l4j_error *error);

/* -------------------------------------------------------------------------------------------------------------- DLPack */

typedef struct l4j_import l4j_import;

/** Takes a DLManagedTensor (versioned = 0) or DLManagedTensorVersioned (versioned = 1, major version 1) without copying. The
    tensor stays valid until l4j_dlpack_release; where the call fails, the managed tensor stays the caller's. The read-only flag
    is the caller's to keep: such a tensor is an input. The CPU's memory, pinned memory (as the CPU's) and a GPU's are taken,
    managed memory is refused; on a GPU the producer's stream is the caller's to wait for. Bytes and layouts: the DLPack
    specification. */
L4J_API l4j_status l4j_dlpack_import(void *managed, int32_t versioned, l4j_import **import, l4j_tensor *tensor,
                                     l4j_error *error);
/** Waits until `queue` (may be NULL) has passed, then runs the producer's deleter and frees the handle. */
L4J_API l4j_status l4j_dlpack_release(l4j_import *import, l4j_queue *queue, l4j_error *error);
/** Makes a DLManagedTensorVersioned (1.0) for the caller's memory, the CPU's or a GPU's. The consumer's deleter frees the descriptor and stores 1 to
    *released (may be NULL, must outlive the descriptor); the memory itself stays the caller's. */
L4J_API l4j_status l4j_dlpack_export(const l4j_tensor *tensor, int32_t *released, void **managed, l4j_error *error);

/* ---------------------------------------------------------------------------------------------------- non-finite values */

/** Identifies operations in l4j_numeric_status. */
enum { L4J_OP_NONE = 0, L4J_OP_LINEAR_CROSS_ENTROPY = 1, L4J_OP_ADAMW = 2 };

/** Where the first non-finite value was seen. Zero it before the step; an operation writes it only while `operation` is 0. */
typedef struct l4j_numeric_status {
    int64_t step;      /**< the optimizer step, from the operation's `step` pointer (0 where it has none) */
    int32_t operation; /**< L4J_OP_... */
    int32_t tensor;    /**< adamw: index of the tensor in its group; linear_cross_entropy: the row */
    int32_t group;     /**< adamw: index of the group */
    int32_t reserved;
} l4j_numeric_status;

/* ---------------------------------------------------------------------------------------------------------------- lora */

enum {
    L4J_LORA_ACCUMULATE_GRADS = 1, /**< da and db are added to; otherwise they are overwritten */
    L4J_LORA_ACCUMULATE_DX = 2,    /**< dx is added to; otherwise it is overwritten */
    /** With segments on a GPU: the kernel may be chosen by the number of rows of the whole call, cuBLASLt among them. It is faster; a
        row's y and dx may then have other bits in another batch. Without it no batch mate changes a bit. On the CPU none ever does. */
    L4J_LORA_BATCH_DEPENDENT = 4
};
/**
 * A group of G projections that share their input x (a single one, q/k/v, gate/up), each with an optional low-rank adapter:
 *
 *   forward    s_g  = c_g · (mask_g ⊙ x) · A_gᵀ                          [M, R_g], kept by the caller for backward
 *              y_g  = bias_g + x · W_gᵀ + s_g · B_gᵀ                     [M, N_g]
 *   backward   ds_g = c_g · dy_g · B_g                                   (scratch)
 *              dB_g += dy_gᵀ · s_g                                       [N_g, R_g]
 *              dA_g += ds_gᵀ · (mask_g ⊙ x)                              [R_g, K]
 *              dx   = Σ_g mask_g ⊙ (ds_g · A_g) + Σ_g dy_g · W_g         [M, K]
 *
 * with c_g = scaling_g / (1 − p′) (Hu et al. 2021; dropout on the adapter's input as PEFT does it). W is frozen: it has no gradient.
 * Without adapters (adapter_count = 0) this is the plain product with a weight and its transpose.
 *
 * Several adapters in a batch: entry adapter · G + g of a, b, scaling, da and db is that of an adapter on projection g; ranks may
 * differ, and an adapter need not be on every projection. Segments of rows say which rows are whose; they are read when the
 * operation runs. An adapter's rows need not lie together: its gradients are summed over them in ascending order. Every result
 * has the bits that a call with the adapter's rows alone would give. Of a row of s only the first R_g columns of its adapter are
 * written and read, none without an adapter.
 *
 * Dropout: p′ = round(65536 p)/65536; an element is kept when its 16 random bits are ≥ round(65536 p). The bits are Philox4x32-10
 * (Salmon et al. 2011) with key = {low, high half of *dropout_seed} and counter =
 *   { token_index[m],  4·(k / 32) + t,  module_id[g] | adapter_id << 16,  low half of *dropout_step },   t = (k % 8) / 2;
 * column k takes word j = (k % 32) / 8 of that block: its low half when k is even, its high half when k is odd. The mask depends
 * on nothing else: batches, packing, recomputation, threads and devices agree.
 * Known answers, seed 0x0123456789abcdef, token 7, module 3, adapter 1, step 5, hexadecimal, from l4j_philox_mask16:
 *   columns 0 to 7    2d29 f92f 2ba7 80cd 8ec0 2b92 f7e8 59f6
 *   columns 32 to 39  cced 2021 c24b ada1 97dd 11f8 1cd1 66c2
 */
typedef struct l4j_lora {
    uint32_t struct_size;
    uint32_t flags;
    int32_t projection_count; /**< G, 1 to 16 */
    int32_t adapter_count;    /**< 0 to 65536; more than one with segments only */
    int32_t compute; /**< L4J_COMPUTE_F32 or L4J_COMPUTE_BF16, for every product of both directions; forward only:
                                 L4J_COMPUTE_INT8 */
    float dropout_p; /**< 0 ≤ p < 1; p > 0 with round(65536 p) = 0 or 65536 is L4J_EINVAL */

    const l4j_tensor *x;              /**< [M, K] */
    const l4j_weight *const *weights; /**< [G]: [N_g, K] */
    const l4j_tensor *biases;         /**< [G]: [N_g] F32, F16 or BF16, data NULL = none; or NULL */
    const l4j_tensor *a;              /**< [adapter_count · G]: [R_g, K]; data NULL = no adapter on this projection */
    const l4j_tensor *b;              /**< [adapter_count · G]: [N_g, R_g] */
    const float *scaling;             /**< [adapter_count · G], finite, read when the operation runs */
    const l4j_tensor *magnitudes;     /**< DoRA; must be NULL for now */

    const uint64_t *dropout_seed; /**< [1]; these five are needed when dropout_p > 0 only */
    const int64_t *dropout_step;  /**< [1] */
    const uint32_t *token_index;  /**< [M]: index of the token in the epoch's row order */
    const int32_t *module_id;     /**< [G], 0 to 65535 */
    const int32_t *adapter_id;    /**< [adapter_count], 0 to 65535 */

    int32_t segment_capacity; /**< 0: all rows are adapter 0's, and the next three are NULL */
    int32_t reserved0;
    const int32_t *segment_count;    /**< [1], live segments, at most the capacity */
    const int32_t *segment_offsets;  /**< [segment_capacity + 1]: 0, then rows that never fall, M at [*segment_count] */
    const int32_t *segment_adapters; /**< [segment_capacity]: the adapter of each segment's rows, -1 = none */

    const l4j_tensor *y; /**< forward, out, [G]: [M, N_g] */
    const l4j_tensor *s; /**< forward, out; backward, in. [G]: [M, highest R_g]; data NULL where there is no adapter */

    const l4j_tensor *dy; /**< backward, in, [G]: [M, N_g] */
    const l4j_tensor *dx; /**< backward, out: [M, K]; NULL = not wanted */
    const l4j_tensor *da; /**< backward, out, [adapter_count · G]: [R_g, K]; entry with data NULL = not wanted */
    const l4j_tensor *db; /**< backward, out, [adapter_count · G]: [N_g, R_g]; entry with data NULL = not wanted */
    int64_t reserved[8];
} l4j_lora;

L4J_API l4j_status l4j_lora_forward_workspace(const l4j_queue *queue, const l4j_lora *args, size_t *bytes,
                                              l4j_error *error);
L4J_API l4j_status l4j_lora_forward(l4j_queue *queue, const l4j_lora *args, void *workspace, size_t workspace_bytes,
                                    l4j_error *error);
L4J_API l4j_status l4j_lora_backward_workspace(const l4j_queue *queue, const l4j_lora *args, size_t *bytes,
                                               l4j_error *error);
L4J_API l4j_status l4j_lora_backward(l4j_queue *queue, const l4j_lora *args, void *workspace, size_t workspace_bytes,
                                     l4j_error *error);

/** The 16 random bits of columns 0 to columns − 1 of one token, as the dropout of l4j_lora draws them: out[k]. */
L4J_API l4j_status l4j_philox_mask16(uint64_t seed, int64_t step, uint32_t token_index, int32_t module_id,
                                     int32_t adapter_id, int64_t columns, uint16_t *out, l4j_error *error);

/* ----------------------------------------------------------------------------------------------------------- dequantize */

/** Rows [row_begin, row_begin + out rows) of a weight as fp32 (fp64 on L4J_ISA_REF64; on a GPU also rounded once to F16 or BF16):
    out [rows, K]. */
typedef struct l4j_dequantize {
    uint32_t struct_size;
    int32_t reserved0;
    const l4j_weight *weight;
    int64_t row_begin;
    const l4j_tensor *out;
    int64_t reserved[4];
} l4j_dequantize;

L4J_API l4j_status l4j_dequantize_forward_workspace(const l4j_queue *queue, const l4j_dequantize *args, size_t *bytes,
                                                    l4j_error *error);
L4J_API l4j_status l4j_dequantize_forward(l4j_queue *queue, const l4j_dequantize *args, void *workspace,
                                          size_t workspace_bytes, l4j_error *error);

/* ------------------------------------------------------------------------------------------------------------- quantize */

enum {
    L4J_QUANTIZE_GIVEN_OFFSET =
        1 /**< NESTED_OFFSET is read; otherwise it is written: the mean of absmax, summed in fp64 */
};

/**
 * Values as the parts of a quantized weight, with the bits that the format's owner gives: NF4 and FP4 (bitsandbytes' CPU code, with
 * double quantization where the nested parts are there), LLM_INT8, GGUF_Q4_0, Q4_1, Q5_0, Q8_0, Q4_K and Q6_K (ggml's
 * quantize_row_<type>_ref, without fused multiply-adds). Other schemes are L4J_ENOTSUP. The parts are those of l4j_weight_create;
 * all are written but BLOCK_SIZE and NESTED_BLOCK_SIZE, which are read. A value that is NaN or Inf, or a block that needs a scale beyond fp16, is
 * L4J_ENUMERIC with its row and column; what the parts hold then is not said. Parts must not overlap x.
 */
typedef struct l4j_quantize {
    uint32_t struct_size;
    uint32_t flags;
    int32_t scheme; /**< L4J_SCHEME_... */
    int32_t part_count;
    const l4j_tensor *x;           /**< [N, K] F32, F16 or BF16 */
    const int32_t *part_roles;     /**< [part_count], each role once */
    const l4j_tensor *part_values; /**< out: [part_count] */
    int64_t reserved[4];
} l4j_quantize;

L4J_API l4j_status l4j_quantize_forward_workspace(const l4j_queue *queue, const l4j_quantize *args, size_t *bytes,
                                                  l4j_error *error);
L4J_API l4j_status l4j_quantize_forward(l4j_queue *queue, const l4j_quantize *args, void *workspace,
                                        size_t workspace_bytes, l4j_error *error);

/* ------------------------------------------------------------------------------------------------------------- rms_norm */

/**
 * Root-mean-square norm over the last dimension (Zhang & Sennrich 2019), with an optional residual:
 *   forward    h = x + residual;  rstd = 1 / sqrt(mean(h²) + eps);  y = (h · rstd) · weight
 *   backward   dx = dresidual + rstd · (weight ⊙ dy − h · rstd² · mean(weight ⊙ dy ⊙ h));  dweight += Σ_rows dy · (h · rstd)
 * Without a residual h is x and `h` may be NULL in forward; backward reads `h`.
 * y may be x; h may be x or residual; dx may be dy or dresidual.
 */
typedef struct l4j_rms_norm {
    uint32_t struct_size;
    float eps;
    const l4j_tensor *x;         /**< [M, N] */
    const l4j_tensor *residual;  /**< [M, N] or NULL */
    const l4j_tensor *weight;    /**< [N]: F32, F16 or BF16 (F64 too on the oracle) */
    const l4j_tensor *h;         /**< forward, out; backward, in: [M, N] */
    const l4j_tensor *y;         /**< forward, out: [M, N] */
    const l4j_tensor *rstd;      /**< forward, out; backward, in: [M] */
    const l4j_tensor *dy;        /**< [M, N] */
    const l4j_tensor *dresidual; /**< the gradient that reaches h beside the norm: [M, N] or NULL */
    const l4j_tensor *dx;        /**< out: [M, N] */
    const l4j_tensor *dweight;   /**< out, accumulated, rows in ascending order: [N]; NULL = frozen */
    int64_t reserved[4];
} l4j_rms_norm;

L4J_API l4j_status l4j_rms_norm_forward_workspace(const l4j_queue *queue, const l4j_rms_norm *args, size_t *bytes,
                                                  l4j_error *error);
L4J_API l4j_status l4j_rms_norm_forward(l4j_queue *queue, const l4j_rms_norm *args, void *workspace,
                                        size_t workspace_bytes, l4j_error *error);
L4J_API l4j_status l4j_rms_norm_backward_workspace(const l4j_queue *queue, const l4j_rms_norm *args, size_t *bytes,
                                                   l4j_error *error);
L4J_API l4j_status l4j_rms_norm_backward(l4j_queue *queue, const l4j_rms_norm *args, void *workspace,
                                         size_t workspace_bytes, l4j_error *error);

/* ----------------------------------------------------------------------------------------------------------------- rope */

enum {
    L4J_ROPE_INTERLEAVED = 1 /**< pairs (2i, 2i+1) as GGUF's llama; default: halves (i, i + rot/2) as Hugging Face */
};

/**
 * Rotary position embedding (Su et al. 2021): each pair (a, b) of a head becomes (a·cos − b·sin, b·cos + a·sin); backward turns
 * the other way. The first 2·cos.shape[1] elements of a head are rotated, the others copied. `dst` may be `src`.
 * Rounding: a·cos is rounded, then fma(−b, sin, ·); b·cos is rounded, then fma(a, sin, ·).
 */
typedef struct l4j_rope {
    uint32_t struct_size;
    uint32_t flags;
    const l4j_tensor *src;    /**< [M, H, D] */
    const l4j_tensor *dst;    /**< out: [M, H, D] */
    const l4j_tensor *cosine; /**< [P, rot/2] */
    const l4j_tensor *sine;   /**< [P, rot/2] */
    const int32_t *positions; /**< [M], each 0 ≤ position < P, checked when the operation runs */
    int64_t reserved[4];
} l4j_rope;

L4J_API l4j_status l4j_rope_forward_workspace(const l4j_queue *queue, const l4j_rope *args, size_t *bytes,
                                              l4j_error *error);
L4J_API l4j_status l4j_rope_forward(l4j_queue *queue, const l4j_rope *args, void *workspace, size_t workspace_bytes,
                                    l4j_error *error);
/** src is the gradient of the rotated tensor, dst the gradient of the tensor before. */
L4J_API l4j_status l4j_rope_backward_workspace(const l4j_queue *queue, const l4j_rope *args, size_t *bytes,
                                               l4j_error *error);
L4J_API l4j_status l4j_rope_backward(l4j_queue *queue, const l4j_rope *args, void *workspace, size_t workspace_bytes,
                                     l4j_error *error);

/* ------------------------------------------------------------------------------------------------------------ attention */

enum { L4J_ATTENTION_CAUSAL = 1 };

/**
 * Scaled dot-product attention over packed sequences of different lengths, grouped-query: query head h reads key/value head
 * h / (Hq / Hkv). Sequence b has the queries [q_offsets[b], q_offsets[b+1]) and the keys [kv_starts[b], kv_starts[b] + kv_lengths[b]).
 * Causal: with n_q queries, query i sees the keys 0 to kv_length − n_q + i of its sequence. So the same call serves training
 * (keys = queries), prefill and decoding with a cache. With a window w > 0, causal only, it sees the last w of those keys, itself
 * counted (sliding window attention of Mistral: Jiang et al. 2023; in transformers i − w < j ≤ i); the others cost nothing.
 *   forward    z_ij = scale · (q_i · k_j);  p_ij = exp(z_ij − max_i) / Σ_j;  o_i = Σ_j p_ij v_j;  lse_i = max_i + log Σ_j
 *   backward   dq, dk, dv of the rows that the sequences cover are overwritten; other rows are left alone.
 * A query that sees no key is L4J_EINVAL.
 */
typedef struct l4j_attention {
    uint32_t struct_size;
    uint32_t flags;
    float scale;               /**< usually 1/sqrt(D) */
    float softcap;             /**< must be 0 for now */
    int32_t window;            /**< most keys that a query sees; 0 = no sliding window */
    int32_t sequences;         /**< B */
    int64_t max_q_length;      /**< no sequence has more queries; checked */
    int64_t max_kv_length;     /**< no sequence has more keys; checked; sizes the workspace */
    const int32_t *q_offsets;  /**< [B + 1], ascending, within [0, Mq] */
    const int32_t *kv_starts;  /**< [B] */
    const int32_t *kv_lengths; /**< [B] */
    const l4j_tensor *q;       /**< [Mq, Hq, D] */
    const l4j_tensor *k;       /**< [Mk, Hkv, D] */
    const l4j_tensor *v;       /**< [Mk, Hkv, D] */
    const l4j_tensor *o;       /**< forward, out; backward, in: [Mq, Hq, D] */
    const l4j_tensor *lse;     /**< forward, out; backward, in: [Mq, Hq]; NULL in a forward without backward */
    const l4j_tensor *d_o;     /**< [Mq, Hq, D] */
    const l4j_tensor *dq;      /**< out: [Mq, Hq, D] */
    const l4j_tensor *dk;      /**< out: [Mk, Hkv, D] */
    const l4j_tensor *dv;      /**< out: [Mk, Hkv, D] */
    int64_t reserved[4];
} l4j_attention;

L4J_API l4j_status l4j_attention_forward_workspace(const l4j_queue *queue, const l4j_attention *args, size_t *bytes,
                                                   l4j_error *error);
L4J_API l4j_status l4j_attention_forward(l4j_queue *queue, const l4j_attention *args, void *workspace,
                                         size_t workspace_bytes, l4j_error *error);
L4J_API l4j_status l4j_attention_backward_workspace(const l4j_queue *queue, const l4j_attention *args, size_t *bytes,
                                                    l4j_error *error);
L4J_API l4j_status l4j_attention_backward(l4j_queue *queue, const l4j_attention *args, void *workspace,
                                          size_t workspace_bytes, l4j_error *error);

/* --------------------------------------------------------------------------------------------------------------- swiglu */

/**
 * out = silu(gate) ⊙ up with silu(g) = g / (1 + exp(−g)) (Shazeer 2020). Backward recomputes the sigmoid.
 * out may be gate or up; dgate may be gate or dout, dup may be up or dout (not both the same).
 */
typedef struct l4j_swiglu {
    uint32_t struct_size;
    int32_t reserved0;
    const l4j_tensor *gate;  /**< [M, N] */
    const l4j_tensor *up;    /**< [M, N] */
    const l4j_tensor *out;   /**< forward, out: [M, N] */
    const l4j_tensor *dout;  /**< [M, N] */
    const l4j_tensor *dgate; /**< out: [M, N] */
    const l4j_tensor *dup;   /**< out: [M, N] */
    int64_t reserved[4];
} l4j_swiglu;

L4J_API l4j_status l4j_swiglu_forward_workspace(const l4j_queue *queue, const l4j_swiglu *args, size_t *bytes,
                                                l4j_error *error);
L4J_API l4j_status l4j_swiglu_forward(l4j_queue *queue, const l4j_swiglu *args, void *workspace, size_t workspace_bytes,
                                      l4j_error *error);
L4J_API l4j_status l4j_swiglu_backward_workspace(const l4j_queue *queue, const l4j_swiglu *args, size_t *bytes,
                                                 l4j_error *error);
L4J_API l4j_status l4j_swiglu_backward(l4j_queue *queue, const l4j_swiglu *args, void *workspace,
                                       size_t workspace_bytes, l4j_error *error);

/* ------------------------------------------------------------------------------------------------------------ embedding */

/** out[m] = weight[ids[m]]; dweight[ids[m]] += dout[m], rows in ascending m. An id outside [0, V) is L4J_EINVAL before any write. */
typedef struct l4j_embedding {
    uint32_t struct_size;
    int32_t reserved0;
    const l4j_weight *weight;  /**< [V, N] (forward) */
    const int32_t *ids;        /**< [M] */
    const l4j_tensor *out;     /**< forward, out: [M, N] */
    const l4j_tensor *dout;    /**< [M, N] */
    const l4j_tensor *dweight; /**< backward, out, accumulated: [V, N] */
    int64_t reserved[4];
} l4j_embedding;

L4J_API l4j_status l4j_embedding_forward_workspace(const l4j_queue *queue, const l4j_embedding *args, size_t *bytes,
                                                   l4j_error *error);
L4J_API l4j_status l4j_embedding_forward(l4j_queue *queue, const l4j_embedding *args, void *workspace,
                                         size_t workspace_bytes, l4j_error *error);
L4J_API l4j_status l4j_embedding_backward_workspace(const l4j_queue *queue, const l4j_embedding *args, size_t *bytes,
                                                    l4j_error *error);
L4J_API l4j_status l4j_embedding_backward(l4j_queue *queue, const l4j_embedding *args, void *workspace,
                                          size_t workspace_bytes, l4j_error *error);

/* ------------------------------------------------------------------------------------------------- linear_cross_entropy */

/**
 * Cross-entropy of x · weightᵀ without ever holding all logits: rows are taken in chunks, ignored rows are dropped first, and the
 * gradient of x is formed in the same pass (two products a chunk; the weight is frozen).
 *   loss_m = log Σ_v exp(z_mv) − z_m,target        (not weighted)
 *   dx_m   = row_weight_m · grad_scale · (softmax(z_m) − onehot(target_m)) · weight
 * Ignored rows: loss 0, lse 0, predicted −1, dx 0. A target that is neither ignored nor in [0, V) is L4J_EINVAL before any write.
 */
typedef struct l4j_linear_cross_entropy {
    uint32_t struct_size;
    int32_t ignore_index;        /**< usually −100 */
    float softcap;               /**< must be 0 for now */
    int32_t compute;             /**< L4J_COMPUTE_F32 or L4J_COMPUTE_BF16, for both products */
    const l4j_tensor *x;         /**< [M, K] */
    const l4j_weight *weight;    /**< [V, K] */
    const int32_t *targets;      /**< [M] */
    const float *row_weight;     /**< [M] or NULL = 1 */
    const float *grad_scale;     /**< [1] or NULL = 1 */
    const int64_t *step;         /**< [1] or NULL; only for numeric_status */
    const l4j_tensor *loss;      /**< out: [M] */
    const l4j_tensor *lse;       /**< out: [M] */
    int32_t *predicted;          /**< out: [M] the most likely token, lowest index of a tie; or NULL */
    const l4j_tensor *dx;        /**< out: [M, K]; or NULL = loss only */
    l4j_numeric_status *numeric; /**< or NULL */
    int64_t reserved[4];
} l4j_linear_cross_entropy;

L4J_API l4j_status l4j_linear_cross_entropy_forward_workspace(const l4j_queue *queue,
                                                              const l4j_linear_cross_entropy *args, size_t *bytes,
                                                              l4j_error *error);
L4J_API l4j_status l4j_linear_cross_entropy_forward(l4j_queue *queue, const l4j_linear_cross_entropy *args,
                                                    void *workspace, size_t workspace_bytes, l4j_error *error);

/* ---------------------------------------------------------------------------------------------------------------- adamw */

/** What changes from step to step, read when the operation runs. */
typedef struct l4j_adamw_hyper {
    double learning_rate;
    double beta1;
    double beta2;
    double epsilon;
    double weight_decay;
    double max_grad_norm; /**< 0 = no clipping */
    double grad_scale;    /**< gradients are multiplied by it first; 1 = none */
    int64_t step;         /**< 1 at the first update */
} l4j_adamw_hyper;

enum { L4J_ADAMW_STATE_BLOCK = 256 /**< elements of 8-bit state that share a scale */ };

/**
 * A group of parameters with its own settings: one adapter, usually. All tensors contiguous, of equal size per index.
 *
 * The state of a tensor, exp_avgs[i] and exp_avg_sqs[i], is F32, or U8 with a scale for each block of 256 elements: 8-bit block-wise
 * state (Dettmers et al. 2022; AdamW8bit of bitsandbytes). Code c stands for map[c] · scale; the map has the 256 values of the signed
 * dynamic data type for exp_avgs, of the unsigned one for exp_avg_sqs (create_dynamic_map). A step decodes the state, computes in fp32,
 * and stores the greatest magnitude of a block as its scale and for each element the code of the nearest value (of two, the lower).
 * Zeros, codes and scales, are the state before the first step, as in F32. bitsandbytes keeps tensors of fewer than 4096 elements
 * in F32; here the dtype says it.
 */
typedef struct l4j_adamw_group {
    int64_t tensor_count;
    const l4j_tensor *params;      /**< [tensor_count], updated */
    const l4j_tensor *grads;       /**< [tensor_count], zeroed afterwards when the flag says so */
    const l4j_tensor *exp_avgs;    /**< [tensor_count], F32 or U8, updated */
    const l4j_tensor *exp_avg_sqs; /**< [tensor_count], the same dtype, updated */
    const l4j_adamw_hyper *hyper;  /**< [1] */
    double *grad_norm;             /**< out [1]: ‖grad_scale · grads‖₂ before clipping; or NULL */
    const l4j_tensor
        *exp_avg_scales; /**< [tensor_count] of [ceil(elements / 256)], updated; data NULL where the state is
                                           F32; NULL where all of it is */
    const l4j_tensor *exp_avg_sq_scales; /**< [tensor_count], the same for exp_avg_sqs */
} l4j_adamw_group;

enum { L4J_ADAMW_ZERO_GRADS = 1 };

/**
 * AdamW (Loshchilov & Hutter 2019) over all groups in one call, as torch.optim.AdamW computes it; each group is clipped by its own
 * norm: scale = min(1, max_grad_norm / (norm + 1e-6)). The norm is summed in fp64 per tensor, then over tensors in order.
 * A non-finite norm leaves the group's parameters and state as they are and is reported in `numeric`; the call returns L4J_OK.
 */
typedef struct l4j_adamw {
    uint32_t struct_size;
    uint32_t flags;
    int64_t group_count;
    const l4j_adamw_group *groups; /**< [group_count] */
    l4j_numeric_status *numeric;   /**< or NULL */
    int64_t reserved[4];
} l4j_adamw;

L4J_API l4j_status l4j_adamw_step_workspace(const l4j_queue *queue, const l4j_adamw *args, size_t *bytes,
                                            l4j_error *error);
L4J_API l4j_status l4j_adamw_step(l4j_queue *queue, const l4j_adamw *args, void *workspace, size_t workspace_bytes,
                                  l4j_error *error);

/* ---------------------------------------------------------------------------------------------------------------- axpby */

/** y = alpha · x + beta · y over [M, N]: fl(alpha·x) is rounded, then fma(beta, y, ·). y is not read when beta is 0. */
typedef struct l4j_axpby {
    uint32_t struct_size;
    int32_t reserved0;
    const float *alpha;  /**< [1] */
    const float *beta;   /**< [1] */
    const l4j_tensor *x; /**< [M, N] */
    const l4j_tensor *y; /**< in and out: [M, N] */
    int64_t reserved[4];
} l4j_axpby;

L4J_API l4j_status l4j_axpby_forward_workspace(const l4j_queue *queue, const l4j_axpby *args, size_t *bytes,
                                               l4j_error *error);
L4J_API l4j_status l4j_axpby_forward(l4j_queue *queue, const l4j_axpby *args, void *workspace, size_t workspace_bytes,
                                     l4j_error *error);

/* --------------------------------------------------------------------------------------------------------------- sample */

/** How to draw, read when the operation runs. */
typedef struct l4j_sample_hyper {
    double temperature; /**< 0 = greedy: the largest logit, lowest index of a tie */
    double top_p;       /**< 1 = off; otherwise the smallest set of most likely tokens whose probabilities reach it */
    int32_t top_k;      /**< 0 = off */
    int32_t reserved;
    uint64_t seed;
    int64_t step; /**< position of the draw; with seed and row it determines the random number (Philox4x32-10) */
} l4j_sample_hyper;

/** Draws one token for each row of logits: temperature, then top_k, then top_p, as transformers orders them. NaN is L4J_ENUMERIC. */
typedef struct l4j_sample {
    uint32_t struct_size;
    int32_t reserved0;
    const l4j_tensor *logits; /**< [M, V] */
    const l4j_sample_hyper *hyper;
    int32_t *ids; /**< out: [M] */
    int64_t reserved[4];
} l4j_sample;

L4J_API l4j_status l4j_sample_forward_workspace(const l4j_queue *queue, const l4j_sample *args, size_t *bytes,
                                                l4j_error *error);
L4J_API l4j_status l4j_sample_forward(l4j_queue *queue, const l4j_sample *args, void *workspace, size_t workspace_bytes,
                                      l4j_error *error);

#ifdef __cplusplus
}
#endif

#endif /* LORA4J_H */
