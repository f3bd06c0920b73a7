"""Step times from kernels that were measured one by one, and measured rows read as the layouts that they are of."""

import csv
import gzip
from importlib import resources
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from crosslogic.catalog.cards import find_card, load_cards
from crosslogic.catalog.gpus import find_gpu, load_gpus
from crosslogic.compass.capacity.kernel_tables import GPUS, packaged_tables
from crosslogic.compass.capacity.kernels import Kernels
from crosslogic.compass.capacity.roofline import roofline
from crosslogic.compass.capacity.rows import Layout, Load, architecture, layout_of, packaged_rows
from crosslogic.simulator.fit import Configuration, read_rows

LLAMA, BIG, MIXTURE = "meta-llama/Llama-3.1-8B-Instruct", "meta-llama/Llama-3.1-70B-Instruct", "openai/gpt-oss-120b"


def kernels(model: str = LLAMA, gpu: str = "h100_sxm", precision: str = "bf16", tp: int = 1) -> Kernels:
    card, known = find_card(model), find_gpu(gpu)
    assert card is not None
    assert known is not None
    return Kernels(card, known, precision, Layout(tp))


def seconds(of: Kernels, running: float = 16, prompt: float = 1024, output: float = 256) -> tuple[float, float]:
    itl, ttft = of.seconds(*(np.array([each]) for each in (running, prompt, output)))
    return float(itl[0]), float(ttft[0])


def test_a_small_model_reads_its_weights_at_about_the_memorys_speed() -> None:
    alone, _ = seconds(kernels(), running=1, prompt=64, output=256)
    least = 16.06e9 / 3.35e12
    assert least < alone < 3 * least + 3e-3  # launches come on top


@pytest.mark.parametrize("gpu", ["h100_sxm", "h200_sxm", "b200_sxm", "l40s", "a100_80", "l4", "mi300x", "t4", "gb300"])
@pytest.mark.parametrize("model", [LLAMA, MIXTURE, "deepseek-ai/DeepSeek-R1", "Qwen/Qwen3.5-397B-A17B"])
def test_more_work_never_takes_less(model: str, gpu: str) -> None:
    of = kernels(model, gpu, tp=8)
    for axis in ("running", "prompt"):
        times = [seconds(of, **{axis: float(2**power)}) for power in range(2, 15)]
        itls, ttfts = zip(*times, strict=True)
        assert all(np.isfinite(itls)), (model, gpu)
        assert all(later >= 0.97 * earlier for earlier, later in pairwise(itls)), axis
        assert all(later >= 0.97 * earlier for earlier, later in pairwise(ttfts)), axis


def test_attention_of_a_long_prompt_grows_with_its_square() -> None:
    of = kernels()
    first = [seconds(of, running=1, prompt=float(tokens))[1] for tokens in (8_192, 16_384, 65_536, 131_072)]
    assert 1.8 < first[1] / first[0] < 2.6
    assert first[3] / first[2] > 2.6  # where it is most of the work, doubling the prompt costs more than twice
    card, gpu = find_card(LLAMA), find_gpu("h100_sxm")
    assert card is not None
    assert gpu is not None
    flat = roofline(architecture(card), gpu, "bf16", 1)
    assert first[3] > 1.5 * flat.first_token_s(Load(1, 131_072, 256))


def test_more_gpus_are_quicker_but_not_in_proportion() -> None:
    one, two, eight = (seconds(kernels(BIG, precision="fp8", tp=tp), running=64)[0] for tp in (1, 2, 8))
    assert one > two > eight > one / 8


def test_what_was_not_measured_goes_with_its_memory() -> None:
    slow, quick = seconds(kernels(gpu="l4"), running=1)[0], seconds(kernels(gpu="l40s"), running=1)[0]
    assert slow / quick == pytest.approx(864 / 300, rel=0.25)  # of GB a second, and a fixed time for launches


def test_every_model_and_gpu_of_the_catalogue_has_times() -> None:
    for card in load_cards().values():
        for gpu in load_gpus().values():
            for precision in ("bf16", "fp8", "int4", "fp4"):
                itl, ttft = Kernels(card, gpu, precision, Layout(2)).seconds(
                    np.array([8.0]), np.array([512.0]), np.array([128.0])
                )
                assert 0 < itl[0] < 30, (card.id, gpu.id)
                assert 0 < ttft[0] < 300, (card.id, gpu.id)


def test_the_packaged_tables_are_whole() -> None:
    tables = packaged_tables()
    assert set(tables) == set(GPUS)
    assert set(tables["b200_sxm"].gemm) == {"bf16", "fp8", "fp4"}
    assert set(tables["a100_sxm"].gemm) == {"bf16"}
    product = tables["h100_sxm"].gemm["bf16"].seconds(16_384, 4096, 4096)
    assert 2 * 16_384 * 4096 * 4096 / float(product) == pytest.approx(743e12, rel=0.05)  # FLOP/s, measured 0.74 ms


FILE = "id,backend,model_path,system,precision,gemm_quant_mode,mode,concurrency,isl,osl,tp_size,pp_size,"
FILE += "attention_dp_size,moe_ep_size,ttft_ms,tpot_ms\n"


@pytest.mark.parametrize(
    ("row_id", "sizes", "tp", "layout"),
    [
        ("x_tp4_ep4_6", "4,,1,4", 4, "ep4"),
        ("x_tp4_ep4_1318", "4,,4,16", 4, "ep4"),  # the same measurement under another name
        ("x_tp4_ep4_1975", "16,,1,4", 4, "ep4"),
        ("x_tp8_0_ep8_0_1262", "8,,1,8", 8, "ep8"),
        ("x_tp8_ep8_980", "1,,64,8", 1, "dp8 ep8"),
        ("x_cfg202", "16,,1,4", 4, "ep4"),
        ("x_cfg191", "1,,64,8", 1, "dp8 ep8"),
        ("x_cfg635", "4,,4,16", 4, "ep4"),
        ("x_tp8_epnone_63", "8,,,4", 8, "ep4"),
        ("x_cfg1", "8,,,", 8, ""),
    ],
)
def test_a_row_is_of_as_many_gpus_as_its_name_says(
    tmp_path: Path, row_id: str, sizes: str, tp: int, layout: str
) -> None:
    file = tmp_path / "rows.csv.gz"
    with gzip.open(file, "wt") as out:
        out.write(FILE + f"{row_id},vllm,m,h100_sxm,fp8,fp8,agg,8,1024,128,{sizes},100,10\n")
    assert list(read_rows(file)) == [Configuration("m", "h100_sxm", "fp8", "vllm", tp, layout)]


def test_no_measurement_is_under_two_names_and_no_cluster_is_one_engine() -> None:
    seen: dict[object, Configuration] = {}
    for row in packaged_rows():
        c = row.configuration
        what = (c.model, c.gpu, c.backend, row.load, row.itl_s, row.ttft_s)
        assert seen.setdefault(what, c) == c
        card = find_card(c.model)
        assert card is not None
        assert card.attention_heads % c.tp == 0
        assert layout_of(c).gpus <= 16


def test_defects_of_the_file_are_still_there_to_be_mended() -> None:
    """Else the mending can go."""
    with (
        resources.as_file(resources.files("crosslogic.simulator").joinpath("data/measured_e2e_silicon.csv.gz")) as path,
        gzip.open(path, "rt") as file,
    ):
        assert any(row["tp_size"] == "64" and "tp8_ep8" in row["id"] for row in csv.DictReader(file))
