"""The machine and the tiers: what stands in the results, and what caps every side to the same instructions."""
import os, pathlib, platform, re, subprocess

CAPS = {"avx2": {"LORA4J_MAX_ISA": "avx2", "OPENBLAS_CORETYPE": "Zen", "ONEDNN_MAX_CPU_ISA": "AVX2", "DNNL_MAX_CPU_ISA": "AVX2",
                 "ATEN_CPU_CAPABILITY": "avx2", "MKL_ENABLE_INSTRUCTIONS": "AVX2"}}


class Machine:
    def __init__(self, isa, threads):
        fields = {}
        for line in pathlib.Path("/proc/cpuinfo").read_text().split("\n\n")[0].splitlines():
            key, _, value = line.partition(":")
            fields[key.strip()] = value.strip()
        self.flags = set(fields.get("flags", "").split())
        self.isa, self.threads, self.peft = isa, threads, True
        self.name = fields.get("model name", platform.machine())
        self.model = f"family {fields.get('cpu family', '?')} model {fields.get('model', '?')}"
        self.environment = {**os.environ, **self.caps()}

    def caps(self):
        """Environment of every process: the same cap for each side, or each side's best."""
        if self.isa in CAPS:
            return CAPS[self.isa]
        # OpenBLAS 0.3.21 does not know newer AMD processors and would take its AVX2 kernels there.
        return {"OPENBLAS_CORETYPE": "SkylakeX"} if "avx512f" in self.flags and "AMD" in self.name else {}

    def cores(self):
        """Physical cores behind the threads, as far as the system tells: a virtual machine may call each hyperthread a core."""
        siblings = set()
        for cpu in os.sched_getaffinity(0):
            file = pathlib.Path(f"/sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list")
            siblings.add(file.read_text().strip() if file.exists() else cpu)
        return min(self.threads, len(siblings))

    def slug(self):
        """File name of the results: a virtual machine often tells the brand only, the model tells the core."""
        return re.sub(r"[^a-z0-9]+", "-", f"{self.name} {self.model}".lower().replace("(r)", "").replace("(tm)", "").replace("family ", "f").replace("model ", "m")).strip("-")

    def about(self):
        memory = re.search(r"MemTotal:\s+(\d+)", pathlib.Path("/proc/meminfo").read_text())
        return {"cpu": self.name, "model": self.model, "cpus": len(os.sched_getaffinity(0)), "memory_gib": round(int(memory.group(1)) / 2**20, 1),
                "kernel": platform.release(), "python": platform.python_version()}


def commit(root):
    """The commit that is measured, with + where the tree has changes; a bundle has it in a file."""
    if (root / "commit").exists():
        return (root / "commit").read_text().strip()
    try:
        head = subprocess.run(["git", "-C", root, "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=True).stdout.strip()
        dirty = subprocess.run(["git", "-C", root, "status", "--porcelain", "--untracked-files=no"], capture_output=True, text=True, check=True).stdout
        return head + ("+" if dirty else "")
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
