"""Which of the nine use cases is meant, by weighed words; what is denied counts against. Pure.

Invariant: later turns weigh more than earlier ones, so that a correction wins; nothing said leaves all at zero.
"""

import re
from collections.abc import Sequence

from crosslogic.compass.intent.text import Text
from crosslogic.compass.specification.model import UseCase

_OLDER_COUNTS = 0.5  # a turn weighs so much less than the one after it
_LEAST = 1.0
_NEGATION = re.compile(
    r"\b(?:not|no|isn't|instead of|rather than|without|no longer|never)\s+(?:an? |the |"
    r"about |just |only |for )?(?:\w+[- ])?$"
)

_CHAT, _COMPLETE, _CODE = UseCase.CHATBOT_CONVERSATIONAL, UseCase.CODE_COMPLETION, UseCase.CODE_GENERATION_DETAILED
_TRANSLATE, _CONTENT = UseCase.TRANSLATION, UseCase.CONTENT_GENERATION
_SHORT, _LONG = UseCase.SUMMARIZATION_SHORT, UseCase.LONG_DOCUMENT_SUMMARIZATION
_RAG, _LEGAL = UseCase.DOCUMENT_ANALYSIS_RAG, UseCase.RESEARCH_LEGAL_ANALYSIS

_WORDS: tuple[tuple[str, dict[UseCase, float]], ...] = (
    *((rf"\b{each.value}\b", {each: 9.0}) for each in UseCase),
    # conversation
    (r"\bchat-?bots?\b|\bchatterbot", {_CHAT: 6.0}),
    (r"\bconversation(?:al|s)?\b|\bdialog(?:ue)?s?\b", {_CHAT: 4.0}),
    (r"\bbots?\b|\bvirtual agents?\b", {_CHAT: 3.5}),
    (r"\bchat\b(?! with (?:our|your|my|the) (?:pdf|doc|file|data))|\bchats\b|\bchatting\b", {_CHAT: 3.0}),
    (r"\bassistants?\b", {_CHAT: 1.5}),
    (r"\bcopilot\b", {_CHAT: 1.5, _COMPLETE: 1.0}),
    (
        r"\b(?:talk|speak|chatt?)(?:s|ing)? (?:to|with)\b|\bask(?:s|ing)? (?:an? |the |it |"
        r"our )?(?:\w+ )?(?:about|questions)\b|\bkiosk\b|\btutor\w*",
        {_CHAT: 1.5},
    ),
    (r"\bhelp-?\s?desk\b|\bhelp(?:line)? bot\b|\bcall cent(?:er|re)\b", {_CHAT: 3.0}),
    (r"\bcustomer(?:s'?|'s)? (?:service|support|care|questions|facing|-facing)\b|\bcustomer-facing\b", {_CHAT: 2.5}),
    (r"\bsupport (?:chat|agent|assistant|bot)\b|\bfaqs?\b|\bvoice\b", {_CHAT: 2.0}),
    (r"\banswers? (?:\w+ ){0,3}questions\b", {_CHAT: 2.0, _RAG: 0.5}),
    (r"(?<!document )(?<!documents )(?<!doc )\bq ?& ?a\b", {_CHAT: 2.0, _RAG: 1.0}),
    # code
    (
        r"\bcode completions?\b|\bauto-?complet\w+|\btab[- ]complet\w+|"
        r"\binline (?:code )?(?:suggest|complet)\w+",
        {_COMPLETE: 7.0},
    ),
    (
        r"\bwhile (?:they |developers )?typ(?:e|ing)\b|\bas (?:they|you) type\b|"
        r"\bghost text\b|\bfill[- ]in[- ]the[- ]middle\b",
        {_COMPLETE: 4.0},
    ),
    (r"\bgithub[- ]copilot|\bcopilot-like\b|\btabnine\b", {_COMPLETE: 3.0}),
    (
        r"\bide\b|\bides\b|\bvs ?code\b|\bjetbrains\b|\bintellij\b|\bin (?:the|their|"
        r"an) editor\b|\bneovim\b",
        {_COMPLETE: 2.5},
    ),
    (r"\bcompletions?\b", {_COMPLETE: 2.0}),
    (r"\bcod(?:e|ing)\b|\bprogramming\b|\bsoftware\b", {_COMPLETE: 1.5, _CODE: 1.5}),
    (r"\b(?:developers?|devs?|programmers?|coders?)\b", {_COMPLETE: 0.6, _CODE: 0.5}),
    (
        r"\bcode[- ]?gen(?:eration)?\b|\bgenerat\w+ (?:\w+ ){0,2}(?:code|functions?|class(?:es)?|"
        r"modules?|scripts?|programs?)\b",
        {_CODE: 6.0},
    ),
    (
        r"\bwrit(?:e|es|ing) (?:\w+ ){0,3}(?:code|functions?|class(?:es)?|modules?|scripts?|"
        r"programs?|software)\b",
        {_CODE: 5.0},
    ),
    (
        r"\b(?:whole|entire|complete|full) (?:functions?|class(?:es)?|modules?|scripts?|"
        r"programs?|files?)\b|\b(?:python|java|rust|go|typescript|c\+\+) (?:packages?|modules?|"
        r"class(?:es)?|scripts?)\b",
        {_CODE: 4.0},
    ),
    (
        r"\bdocstrings?\b|\bunit tests?\b|\brefactor\w*|\bcod(?:e|ing) (?:assistant|agent|"
        r"tool)s?\b|\bcode review\b",
        {_CODE: 2.0, _COMPLETE: 0.5},
    ),
    (r"\bbug[- ]?fix\w*|\bpull requests?\b|\bboilerplate\b|\bscripts?\b", {_CODE: 1.5}),
    # translation
    (r"\btranslat\w+", {_TRANSLATE: 6.0}),
    (r"\blocali[sz]\w+|\bmulti-?language\b|\binterpret(?:ing|er)\b", {_TRANSLATE: 3.0}),
    (
        r"\b(?:in)?to (?:french|german|spanish|japanese|chinese|hindi|italian|english|"
        r"portuguese|arabic|\w+ languages)\b",
        {_TRANSLATE: 2.0},
    ),
    # content
    (r"\bcontent (?:generation|creation|writing|production|marketing|tool|writers?)\b", {_CONTENT: 5.0}),
    (
        r"\bcopy-?writ\w+|\bmarketing\b|\bnewsletters?\b|\bpress releases?\b|\bghost-?writ\w+|"
        r"\bad(?:vert(?:s|ising|isement)?)? (?:cop(?:y|ies)|texts?)\b|\brelease notes\b",
        {_CONTENT: 3.5},
    ),
    (
        r"\bblog(?: ?posts?|s)?\b|\bsocial media\b|\bproduct descriptions?\b|\bslogans?\b|"
        r"\btweets?\b|\bcreative writing\b|\bstories\b",
        {_CONTENT: 2.5},
    ),
    (
        r"\bdrafts?\b|\bdrafting\b|\bwrit(?:e|es|ing) (?:\w+ ){0,3}(?:e-?mails?|articles?|"
        r"letters?|posts?|texts?|copy)\b",
        {_CONTENT: 2.5},
    ),
    (r"\bcontent\b", {_CONTENT: 1.0}),
    # summaries
    (r"\bsummar\w+|\btl;? ?dr\b|\bcondens\w+|\bdigests?\b|\brecaps?\b", {_SHORT: 4.0, _LONG: 4.0}),
    (r"\bbullet points?\b|\bbriefs?\b|\babstracts?\b|\bhighlights\b", {_SHORT: 1.0, _LONG: 0.7}),
    (
        r"\bnews\b|\barticles?\b|\bshort\b|\btickets?\b|\bthreads?\b|\bmeeting notes\b|"
        r"\bminutes of\b|\bconcise\b|\bemails?\b|\be-mails?\b",
        {_SHORT: 1.0},
    ),
    (r"\blong[- ]document summar\w+", {_LONG: 6.0}),
    (
        r"\b(?:very |extremely |really )?(?:(?<!page )(?<!pages )(?<!sentences )long|lengthy|"
        r"huge|large|big)\b|\bentire books?\b|\bbooks?\b|\bnovels?\b|\btranscripts?\b|"
        r"\bmulti-hour\b",
        {_LONG: 1.8, _LEGAL: 0.8},
    ),
    (
        r"\bwhite ?papers?\b|\bannual reports?\b|\breports?\b|\bthorough(?:ness)?\b|"
        r"\bcomprehensive\b|\bexecutive summar\w+|\bdetailed\b|\bhundreds of pages\b",
        {_LONG: 1.0},
    ),
    (
        r"\b(?:[2-9]\d|\d{3,4})\+?[- ]?pages?\b|\btens of thousands of tokens\b|"
        r"\b\d{2,3},?\d{3} tokens\b",
        {_LONG: 1.5, _LEGAL: 0.8},
    ),
    # documents
    (r"\brag\b|\bretrieval(?:[- ]augmented)?\b|\bvector (?:db|database|store|search)\b", {_RAG: 6.0}),
    (
        r"\bdoc(?:ument)?s? (?:q ?& ?a|qa|analysis|question\w*|search|understanding|"
        r"intelligence)\b|\bknowledge ?bases?\b|\bsemantic search\b",
        {_RAG: 5.0},
    ),
    (
        r"\banswers? (?:\w+ )?(?:in|from|out of) (?:our |the |their )?(?:\w+ )?(?:documents?|docs|pdfs?|"
        r"files|intranet)\b",
        {_RAG: 4.0},
    ),
    (
        r"\bchat with (?:our|your|my|the) (?:pdf|doc|file|data)\w*|\bquestions (?:against|"
        r"about|over|on) (?:our |the |their )?(?:doc|wiki|confluence|pdf|manual|polic|"
        r"intern)\w*",
        {_RAG: 5.0},
    ),
    (
        r"\bconfluence\b|\bwiki\b|\bsharepoint\b|\bcit(?:ed|ations?)\b|"
        r"\bsearch(?:ing)? (?:our |through |the )*(?:docs|documents|manuals)\b|\bgrounded\b",
        {_RAG: 2.5},
    ),
    (r"\blook(?:s|ing|ed)? (?:\w+ )?up\b|\bmanuals?\b|\bpdfs?\b|\bhandbooks?\b", {_RAG: 2.5}),
    (r"\binvoices?\b|\bdocuments?\b|\bextract\w*\b", {_RAG: 0.8}),
    # research and law
    (
        r"\bresearch and legal\b|\blegal (?:research|analysis|review|documents?)\b|"
        r"\bcase (?:law|files?)\b|\blitigation\b|\bdue diligence\b",
        {_LEGAL: 5.0},
    ),
    (
        r"\blegal\b(?! won't| will| says| team (?:says|won't))|\blaw firm\w*|\battorneys?\b|"
        r"\blawyers?\b|\bparalegals?\b|\bjudges?\b",
        {_LEGAL: 2.0},
    ),
    (
        r"\bregulat\w+|\bfilings?\b|\bprecedents?\b|\bpatents?\b|\bcompliance\b|"
        r"\bcontract reviews?\b|\bstatutes?\b|\bclauses?\b",
        {_LEGAL: 2.0},
    ),
    (
        r"\bresearch\b(?! reports?)|\bliterature reviews?\b|\b(?:clinical|scientific) (?:stud|"
        r"paper|trial)\w*|\bresearch papers?\b",
        {_LEGAL: 2.5},
    ),
    (r"\banaly[sz]\w+\b", {_LEGAL: 1.0, _RAG: 0.8}),
    (r"\bcontracts?\b", {_LEGAL: 1.0}),
)
_PATTERNS = tuple((re.compile(words), weights) for words, weights in _WORDS)


def score(text: Text) -> dict[UseCase, float]:
    """What one turn says for and against each use case; a word counts once."""
    scores = dict.fromkeys(UseCase, 0.0)
    for pattern, weights in _PATTERNS:
        best = 0.0
        for match in _few(pattern, text.lower):
            sign = -1.0 if _NEGATION.search(text.lower[max(0, match.start() - 32) : match.start()]) else 1.0
            best = sign if abs(sign) >= abs(best) else best
        for use_case, weight in weights.items():
            scores[use_case] += best * weight
    return scores


def _few(pattern: re.Pattern[str], lower: str) -> list[re.Match[str]]:
    found = []
    for match in pattern.finditer(lower):
        found.append(match)
        if len(found) >= 20:
            break
    return found


def choose(turns: Sequence[dict[UseCase, float]]) -> UseCase | None:
    """The use case that all turns together speak for, the last the loudest; None when none is spoken for."""
    totals = dict.fromkeys(UseCase, 0.0)
    for age, scores in enumerate(reversed(turns)):
        for use_case, weight in scores.items():
            totals[use_case] += weight * _OLDER_COUNTS**age
    best = max(totals, key=lambda use_case: totals[use_case])
    return best if totals[best] >= _LEAST * _OLDER_COUNTS ** max(0, len(turns) - 1) and totals[best] > 0 else None
