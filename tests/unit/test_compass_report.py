"""The report: one page that fetches nothing, obeys no text in it, and draws each candidate."""

import xml.etree.ElementTree as ElementTree
from html.parser import HTMLParser

import msgspec

from crosslogic.compass.ranking.model import Recommendation
from crosslogic.compass.report import lines, report
from tests.planner_samples import SPEC, planner

HOSTILE = '<script src="https://evil.example/x.js"></script><img src=x onerror=alert(1)> & "quoted"'


class Seen(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.attributes: set[str] = set()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes |= {name for name, _ in attrs}


def found() -> Recommendation:
    wishes = msgspec.structs.replace(SPEC.wishes, preferred_gpus=("h100_sxm", "h200_sxm"))
    return planner().recommend(msgspec.structs.replace(SPEC, description=HOSTILE, wishes=wishes), confirm=0)


def test_the_page_draws_each_candidate_fetches_nothing_and_escapes_what_it_is_told() -> None:
    recommendation = found()
    assert recommendation.best is not None
    page = report(recommendation, planner())
    seen = Seen()
    seen.feed(page)
    assert not seen.tags & {"script", "img", "link", "iframe", "object"}
    assert not {name for name in seen.attributes if name.startswith("on") or name in ("src", "href")}
    assert "&lt;script src=" in page
    charts = page.split("<svg")[1:]
    assert len(charts) == 4  # three figures and the cost
    for chart in charts:
        ElementTree.fromstring("<svg" + chart.split("</svg>")[0] + "</svg>")
    for reason in recommendation.best.reasons:
        assert reason.split("&")[0][:20].replace('"', "&quot;") in page or "<" in reason or "'" in reason


def test_latency_rises_with_load_and_the_peak_is_on_the_curve() -> None:
    recommendation = found()
    for figure in ("ttft_p95", "itl_p95", "e2e_p95"):
        drawn = lines(recommendation, planner(), figure)
        assert len(drawn) == min(6, len(recommendation.options))
        for line in drawn:
            values = [value for _, value in line.points]
            assert values == sorted(values)
            assert line.points[-1][0] >= SPEC.traffic.peak_qps * 0.99


def test_a_page_without_options_says_so() -> None:
    empty = msgspec.structs.replace(found(), options=())
    assert "Nothing meets all of this." in report(empty, planner())
