"""One process per device: each trains on its share of the views, the first one writes the weights.

No GPU is needed: two processes on the CPU run the same code, with gloo in the place of NCCL.
"""

import json
import pickle
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from detector.learn.study_slices import phantom_slices
from detector.spec import DetectorKind
from pipeline.commands.detector_training import torchrun_command
from tests.pipeline.service.parts import free_port

TWO_RANKS = """
    import gc
    import os
    import pickle
    import sys
    from pathlib import Path

    import matplotlib.figure
    import torch
    import torch._inductor
    import torch.distributed as dist
    import ultralytics.models.yolo.pose

    import detector.learn.train
    from detector.learn.dataset import LevelDataset
    from detector.learn.train import LevelTrainer, TrainConfig, train_detector
    from detector.spec import DetectorKind

    run, port = Path(sys.argv[1]), sys.argv[2]


    class ParallelOnCpu(torch.nn.parallel.DistributedDataParallel):
        def __init__(self, module, device_ids=None, **options):
            super().__init__(module, **options)


    def train(rank):
        # As torchrun says it; what read it at its import is told.
        os.environ |= {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": "2"}
        os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
        for module in list(sys.modules.values()):
            for name in {"RANK", "LOCAL_RANK"} & vars(module).keys():
                setattr(module, name, int(rank))

        torch.nn.parallel.DistributedDataParallel = ParallelOnCpu
        seen, plain, begin = [], LevelDataset.__getitem__, LevelTrainer.__init__

        def recorded(self, index):
            seen.append(index)
            return plain(self, index)

        def started(self, *arguments, **options):
            begin(self, *arguments, **options)
            self.world_size = 2

        write = detector.learn.train.write_whole

        def written(path, content):
            with (run / f"wrote-{rank}.txt").open("a") as said:
                said.write(path.name + " ")
            write(path, content)

        detector.learn.train.write_whole = written
        LevelDataset.__getitem__ = recorded
        LevelTrainer.__init__ = started
        LevelTrainer._setup_ddp = lambda self: dist.init_process_group("gloo")

        slices = pickle.loads((run / "slices.pickle").read_bytes())
        config = TrainConfig(
            kind=DetectorKind.AXIAL, epochs=1, samples_per_epoch=4, batch_size_slices=4, threads=1
        )
        train_detector(config, [(1.0, slices)], [], run)
        (run / f"seen-{dist.get_rank()}.txt").write_text(" ".join(map(str, sorted(set(seen)))))


    # What is there stays: no process need look through it for garbage.
    gc.collect()
    gc.freeze()
    ranks = []
    for rank in ("0", "1"):
        ranks.append(os.fork())
        if ranks[-1] == 0:
            train(rank)
            sys.exit()
    sys.exit(any([os.waitpid(pid, 0)[1] for pid in ranks]))
"""


def test_two_processes_share_an_epoch_and_write_one_detector(tmp_path: Path) -> None:
    """Both are forked from one that has imported all; ``test_several_nodes`` starts torchrun itself."""
    script = tmp_path / "two_ranks.py"
    script.write_text(textwrap.dedent(TWO_RANKS))
    slices = phantom_slices(DetectorKind.AXIAL, studies=1, seed=5)[:4]
    (tmp_path / "slices.pickle").write_bytes(pickle.dumps(slices))
    root = Path(__file__).parents[3]
    done = subprocess.run(
        [sys.executable, str(script), str(tmp_path), str(free_port())],
        env={"PYTHONPATH": str(root), "PATH": "/usr/bin:/bin", "OMP_NUM_THREADS": "1", "HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=400,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    seen = [set((tmp_path / f"seen-{rank}.txt").read_text().split()) for rank in (0, 1)]
    assert not seen[0] & seen[1] and len(seen[0] | seen[1]) == 4, "each view is trained on by one process"
    # Two that write one file at a time take it away from each other.
    assert (tmp_path / "wrote-0.txt").is_file() and not (tmp_path / "wrote-1.txt").exists()
    assert json.loads((tmp_path / "axial.json").read_text())["training"]["batch_size_slices"] == 4
    assert (tmp_path / "axial.safetensors").is_file()
    assert (tmp_path / "axial_results.png").stat().st_size > 5000


@pytest.mark.parametrize(("device", "count"), [("0,1", 2), ("0,1,3", 3)])
def test_several_gpus_are_started_by_torchrun(device: str, count: int) -> None:
    command = torchrun_command(device, ["detector", "train", "rsna", "--device", device])
    assert f"--nproc-per-node={count}" in command
    assert command[-5:] == ["pipeline", "detector", "train", "rsna", "--device", device][-5:]
