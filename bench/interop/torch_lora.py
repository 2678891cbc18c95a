#!/usr/bin/env python3
"""lora4j's fused LoRA linear inside PyTorch: ctypes for the calls, DLPack for the tensors, nothing copied, no build step.

    python3 torch_lora.py [--library PATH/liblora4j.so] [--model test-data/tiny-llama] [--steps 10]

Replaces the linear layers of a PEFT model by l4j_lora_forward/backward and compares a training run with unpatched PEFT.
Needs torch 2.15, transformers 5.23, peft 0.21 (other versions were not tried). torch_cuda.py uses it on a GPU.
"""
import argparse, copy, ctypes as c, pathlib, sys
import torch

P, I32, I64, U32, F32 = c.c_void_p, c.c_int32, c.c_int64, c.c_uint32, c.c_float
class Tensor(c.Structure):
    _fields_ = [("data", P), ("dtype", I32), ("device_type", I32), ("device_id", I32), ("ndim", I32), ("shape", I64 * 4), ("stride", I64 * 4), ("reserved", I64)]
class DeviceOptions(c.Structure):
    _fields_ = [("struct_size", U32), ("device_type", I32), ("device_id", I32), ("max_isa", I32), ("reserved", I64 * 4)]
class QueueOptions(c.Structure):
    _fields_ = [("struct_size", U32), ("threads", I32), ("spin_us", I32), ("flags", U32), ("stream", P), ("reserved", I64 * 3)]
class Error(c.Structure):
    _fields_ = [("status", I32), ("message", c.c_char * 508)]
class WeightOptions(c.Structure):
    _fields_ = [("struct_size", U32), ("scheme", I32), ("mode", I32), ("flags", U32), ("rows", I64), ("cols", I64), ("part_count", I32), ("reserved0", I32), ("part_roles", P), ("part_values", P), ("reserved", I64 * 4)]
class Lora(c.Structure):
    _fields_ = [("struct_size", U32), ("flags", U32), ("projection_count", I32), ("adapter_count", I32), ("compute", I32), ("dropout_p", F32)] \
        + [(n, P) for n in "x weights biases a b scaling magnitudes dropout_seed dropout_step token_index module_id adapter_id".split()] \
        + [("segment_capacity", I32), ("reserved0", I32)] + [(n, P) for n in "segment_count segment_offsets segment_adapters y s dy dx da db".split()] + [("reserved", I64 * 8)]

class Lora4j:
    """The library, one device, and a queue; on a GPU one for each of torch's streams."""
    def __init__(self, path, threads=0, gpu=None):
        self.lib, self.device, self.queues, self.error, self.threads, self.gpu = c.CDLL(str(path)), P(), {}, Error(), threads, gpu
        options = DeviceOptions(c.sizeof(DeviceOptions), 1 if gpu is None else 2, gpu or 0)
        self.call("device_open", c.byref(options), c.byref(self.device))
    @property
    def queue(self):
        """The queue of torch's current stream."""
        stream = None if self.gpu is None else torch.cuda.current_stream(self.gpu).cuda_stream
        if stream not in self.queues:
            self.queues[stream], options = P(), QueueOptions(c.sizeof(QueueOptions), self.threads, 0, int(self.gpu is not None), stream)
            self.call("queue_create", self.device, c.byref(options), c.byref(self.queues[stream]))
        return self.queues[stream]
    def call(self, name, *args):
        if getattr(self.lib, "l4j_" + name)(*args, c.byref(self.error)):
            raise RuntimeError(f"{name}: {self.error.message.decode()}")
    def view(self, tensor, scope):
        """The tensor's descriptor through DLPack; the import is released when the scope ends."""
        capsule, name = tensor.detach().__dlpack__(max_version=(1, 0)), b"dltensor_versioned"
        pointer = c.PYFUNCTYPE(P, c.py_object, c.c_char_p)(("PyCapsule_GetPointer", c.pythonapi))(capsule, name)
        handle, out = P(), Tensor()
        self.call("dlpack_import", P(pointer), 1, c.byref(handle), c.byref(out))
        c.PYFUNCTYPE(I32, c.py_object, c.c_char_p)(("PyCapsule_SetName", c.pythonapi))(capsule, b"used_dltensor_versioned")
        scope.append(handle)
        return out
    def weight(self, tensor):
        """Borrows the frozen weight; the caller keeps it alive."""
        scope, role, handle = [], I32(1), P()
        part = self.view(tensor, scope)
        options = WeightOptions(c.sizeof(WeightOptions), 1, 1, 0, tensor.shape[0], tensor.shape[1], 1, 0, c.addressof(role), c.addressof(part))
        self.call("weight_create", self.device, self.queue, c.byref(options), c.byref(handle))
        self.call("dlpack_release", scope[0], None)
        return handle
    def lora(self, direction, weight, scaling, flags, **tensors):
        """All memory is torch's: on a GPU its allocator gives it out again in the stream's order, so that nothing waits here."""
        scope, weights, size = [], (P * 1)(weight), c.c_size_t()
        views = {n: self.view(t, scope) for n, t in tensors.items() if t is not None}
        args = Lora(c.sizeof(Lora), flags, 1, 1, 0, 0.0, weights=c.addressof(weights), scaling=P(scaling.data_ptr()), **{n: c.addressof(v) for n, v in views.items()})
        self.call(f"lora_{direction}_workspace", self.queue, c.byref(args), c.byref(size))
        workspace = torch.empty(size.value + 256, dtype=torch.uint8, device=tensors["x"].device)
        self.call(f"lora_{direction}", self.queue, c.byref(args), P((workspace.data_ptr() + 255) // 256 * 256), size)
        for handle in scope:
            self.call("dlpack_release", handle, None)

class LoraLinear(torch.autograd.Function):
    """y = x Wᵀ + bias + scaling (x Aᵀ) Bᵀ. The gradients of A and B are added straight into their .grad."""
    @staticmethod
    def forward(ctx, l4j, weight, bias, scaling, x, a, b):
        rows = x.reshape(-1, x.shape[-1])  # a view, also of strided rows, wherever torch can make one
        y, s = x.new_empty(rows.shape[0], b.shape[0]), x.new_empty(rows.shape[0], a.shape[0])
        l4j.lora("forward", weight, scaling, 0, x=rows, biases=bias, a=a, b=b, y=y, s=s)
        ctx.save_for_backward(rows, s)
        ctx.rest = l4j, weight, scaling, x.shape, a, b
        return y.view(*x.shape[:-1], b.shape[0])
    @staticmethod
    def backward(ctx, dy):
        (rows, s), (l4j, weight, scaling, shape, a, b) = ctx.saved_tensors, ctx.rest
        for p in (a, b):
            p.grad = torch.zeros_like(p) if p.grad is None else p.grad
        dx = rows.new_empty(rows.shape) if ctx.needs_input_grad[4] else None
        l4j.lora("backward", weight, scaling, 1, x=rows, a=a, b=b, s=s, dy=dy.reshape(-1, dy.shape[-1]), dx=dx, da=a.grad, db=b.grad)
        return None, None, None, None, None if dx is None else dx.view(shape), None, None

def patch(model, l4j):
    """Replaces the forward of every LoRA linear of a PEFT model; returns how many."""
    from peft.tuners.lora import Linear
    for m in (layers := [m for m in model.modules() if isinstance(m, Linear)]):
        handle, bias, a, b, scaling = l4j.weight(m.base_layer.weight), m.base_layer.bias, m.lora_A["default"].weight, m.lora_B["default"].weight, torch.tensor([m.scaling["default"]])
        m.forward = lambda x, h=handle, bias=bias, a=a, b=b, s=scaling: LoraLinear.apply(l4j, h, bias, s, x, a, b)
    return len(layers)

def train(model, steps, vocabulary):
    torch.manual_seed(0)
    optimizer, losses = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=2e-3), []
    for _ in range(steps):
        ids = torch.randint(0, vocabulary, (4, 48))
        loss = model(input_ids=ids, labels=ids).loss
        loss.backward()
        losses.append(loss.item())
        optimizer.step(), optimizer.zero_grad()
    return torch.tensor(losses), torch.cat([p.detach().flatten() for p in model.parameters() if p.requires_grad])

if __name__ == "__main__":
    root = pathlib.Path(__file__).resolve().parents[2]
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--library", default=root / "native/build/release/liblora4j.so")
    parser.add_argument("--model", default=root / "test-data/tiny-llama")
    parser.add_argument("--steps", type=int, default=10)
    args = parser.parse_args()
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM
    torch.manual_seed(1)
    base = AutoModelForCausalLM.from_pretrained(args.model, dtype=torch.float32)
    ours = get_peft_model(base, LoraConfig(r=8, lora_alpha=16, target_modules="all-linear", init_lora_weights=False))
    theirs, l4j = copy.deepcopy(ours), Lora4j(args.library, torch.get_num_threads())
    x, w, a, b = torch.randn(7, 33).t(), torch.randn(20, 7), torch.randn(3, 7, requires_grad=True), torch.randn(20, 3, requires_grad=True)
    LoraLinear.apply(l4j, l4j.weight(w), None, torch.tensor([0.5]), x, a, b).sum().backward()  # transposed input, gradient of stride 0
    grads = torch.autograd.grad((x @ w.t() + 0.5 * x @ a.t() @ b.t()).sum(), (a, b))
    strided = max(((g - p.grad).norm() / g.norm()).item() for g, p in zip(grads, (a, b)))
    count = patch(ours, l4j)
    (l1, p1), (l2, p2) = train(ours, args.steps, base.config.vocab_size), train(theirs, args.steps, base.config.vocab_size)
    loss_error, parameter_error = ((l1 - l2).abs() / l2.abs()).max().item(), ((p1 - p2).norm() / p2.norm()).item()
    print(f"{count} layers, {args.steps} steps: loss {l1[0]:.6f} → {l1[-1]:.6f}; against PEFT: loss {loss_error:.1e}, adapter {parameter_error:.1e}, strided gradients {strided:.1e} (relative)")
    sys.exit(0 if max(loss_error, parameter_error, strided) <= 1e-5 else 1)
