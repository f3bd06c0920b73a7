"""What stands around a number that says what it measures: people, rates, times, lengths, money, shares. Pure."""

import re

PEOPLE = (
    r"(?:users?|people|ppl|persons?|employees?|staff|staffers|colleagues?|co-?workers|"
    r"customers?|clients?|developers?|devs?|"
    r"engineers?|programmers?|coders?|analysts?|lawyers?|attorneys?|paralegals?|writers?|copywriters?|editors?|"
    r"translators?|linguists?|accountants?|agents?|readers?|patients?|students?|pupils|"
    r"doctors?|clinicians|physicians|"
    r"scientists?|researchers?|members?|seats?|reps|representatives|sales ?people|"
    r"salespeople|marketers?|journalists?|"
    r"creatives?|subscribers?|visitors?|citizens?|players?|teachers?|professors|nurses?|consultants?|workers?|"
    r"operators?|leads|managers?|shoppers|guests|callers|designers?|underwriters|brokers|"
    r"advisors?|advisers?|officers?|"
    r"technicians?|clerks|executives|auditors?|headcount|folks|humans|experts|professionals|"
    r"tenants|accounts|learners|buyers|"
    r"reporters|authors|bankers|traders|farmers|drivers|associates|partners|heads|"
    # Whoever does something: librarians, chemists, plumbers, actors, assistants, residents.
    r"(?!(?:serv|numb|lett|pap|chapt|answ|ord|lay|clust|contain|paramet|newslett|head|"
    r"fold|offer|post|print|rout|pow|comput|met)ers|"
    r"(?:err|sens|fact|vect|process|monit|col|fl|do|min|maj)ors|(?:vari|plant|restaur|"
    r"const)ants|\w*ments\b|(?:pat|cont|c|perc|ev|acc|compon|cli)ents\b)"
    r"[a-z]{3,14}(?:ians|ists|ers|ors|ants|ents))"
)
AFTER_PEOPLE = re.compile(
    rf"^u\b|^\+?\s*(?:(?!per\b|a\b|requests?\b|gpus?\b|usd\b)[a-z'&/-]+\s+){{0,3}}?(?:of\s+)?{PEOPLE}\b"
)
ATTRIBUTE = re.compile(r"^-(?!(?:person|people|user|seat|strong|odd|plus)\b)[a-z]")  # "250-page tenders"
BEFORE_PEOPLE = re.compile(
    rf"(?:\b(?:team|group|staff|department|company|workforce|office|crew|firm) of|"
    rf"headcount(?: is| of|:)?|{PEOPLE}(?:\s*[:(=?]|\s+is|\s+are)?|"
    r"users? (?:count|number)s?(?: is| of|:)?|(?:used|read|shared) by|number of users(?: is| to|:)?|for)\s*"
    r"(?:about|around|roughly|approximately|approx\.?|some|up to|nearly|almost|over|"
    r"more than|at least|~|ca\.?|circa|maybe|perhaps)?\s*$"
)
AT_ONCE = re.compile(
    r"\b(?:at the same time|concurrent(?:ly)?|simultaneous(?:ly)?|at once|in parallel|"
    r"at any (?:one )?(?:moment|time|given time)|"
    r"at a time|active|online|busy|(?:logged|signed) (?:on|in))\b"
)
SOON_AT_ONCE = re.compile(
    rf"^\s*(?:(?:are|is|be|being|will|would|who|talk(?:ing)?|speak(?:ing)?|to|it|them|using|use|chat(?:ting)?|"
    rf"work(?:ing)?|ask(?:ing)?|with)\s+){{0,5}}(?:{AT_ONCE.pattern})"
)
RATE = re.compile(
    r"^\s*(?:(?:chat|api|user|llm|inference|support)\s+)?(?P<what>requests?|reqs?|queries|"
    r"qps|rps|tps|prompts?|messages?|questions?|calls?|"
    r"completions?|documents?|docs?|articles?|tickets?|translations?|summaries|pages|"
    r"e?-?mails?|letters|drafts)(?P<per>\s*(?:per|/|an?|each|every)\s*)?"
    r"(?P<unit>second|sec|s|minute|min|hour|hr|h|day|daily|d|month|week)?\b"
)
PER_SECOND = {
    "second": 1.0, "sec": 1.0, "s": 1.0, "minute": 60.0, "min": 60.0, "hour": 3600.0, "hr": 3600.0, "h": 3600.0,
    "day": 86400.0, "daily": 86400.0, "d": 86400.0, "week": 604800.0, "month": 2628000.0,
}  # fmt: skip
PERIOD = re.compile(r"^\s*(?:per|/|an?|each|every)\s*(?P<unit>minute|min|hour|day|week|month)\b")
EACH = re.compile(
    r"\b(?:(?:each|every)(?! (?:second|minute|hour|day))|"
    r"per (?:user|person|employee|head|agent|developer|customer)|/user|a person)\b"
)
PEAK = re.compile(r"\b(?:peaks?|peaking|spik(?:es?|ing)|burst(?:s|ing)?|max(?:imum)?|busiest|surges?|rush)\b")
PEAK_AFTER = re.compile(r"^\s*(?:(?:at|in|during|on) (?:the )?)?(?:peaks?|maximum|max|busiest|rush)\b")
TIME = re.compile(
    r"^\s*-?\s*(?P<unit>[µμ]s|micro-?seconds?|ms|msec|milli-?seconds?|seconds?|secs?|s|minutes?|mins?|m(?=in\b))\b(?!\s*(?:of|long|ago))"
)
TIME_MS = {
    "µs": 1e-3,
    "μs": 1e-3,
    "microsecond": 1e-3,
    "microseconds": 1e-3,
    "micro-seconds": 1e-3,
    "ms": 1.0,
    "msec": 1.0,
    "mi": 60_000.0,
    "se": 1000.0,
    "s": 1000.0,
}
LABEL = re.compile(r"\b(?P<label>ttft|itl|tpot|e2e)\W{0,4}(?:p95|of|is|under|below|at most|max)?\W{0,4}$")
LABELS = {
    "ttft": "target_ttft_p95_ms",
    "itl": "target_itl_p95_ms",
    "tpot": "target_itl_p95_ms",
    "e2e": "target_e2e_latency_p95_ms",
}
FIRST = re.compile(
    r"\b(?:ttft|first (?:token|word|character|byte)|start(?:s|ing)? (?:to )?(?:answer|"
    r"respond|stream|writ)\w*|begins?)\b"
)
BETWEEN = re.compile(
    r"\b(?:itl|tpot|inter-?token|between (?:the )?tokens|(?:per|a|each|every|output) token|token latency)\b"
)
WHOLE = re.compile(
    r"\b(?:e2e|end[- ]to[- ]end|total|overall|complete[sd]?|whole|full|finish(?:ed)?|entire|"
    r"in total|altogether|done|deliver\w*)\b"
)
LATENCY = re.compile(
    r"\b(?:latency|latencies|respon[ds]\w*|response time|answers?|replies|reply|within|"
    r"under|delay|sub|wait|takes?|faster|slower)\b|<|≤"
)
TOKENS = re.compile(r"^\s*-?\s*(?:tokens?|toks?)\b")
PACE = re.compile(r"^\s*(?P<what>(?:tokens?|toks?)\s*)?(?:per|/|an?|each|every)\s*(?:seconds?|sec|s)\b")
MOST_PACE = 500.0  # tokens a second; more are those of all together
CONTEXT = re.compile(r"\b(?:context|window)\b")
PROMPT = re.compile(r"\b(?:prompts?|inputs?|questions?|documents?|docs|in\b|per request)")
OUTPUT = re.compile(
    r"\b(?:outputs?|answers?|responses?|generations?|generated?|completions?|replies|reply|summar\w+|out\b)"
)
CENTS = re.compile(r"^\s*(?:us )?(?:cents?|ct|¢)")
MONEY_AFTER = re.compile(
    r"^\s*(?:k\s*)?(?:\$|(?:us )?(?:cents?|ct)\b|¢|usd|us dollars?|dollars?|bucks|eur|euros?|€|£|gbp|pounds)"
)
MONEY_BEFORE = re.compile(r"(?:\$|usd|us\$|€|eur|£|gbp)\s*$")
BUDGET_BEFORE = re.compile(r"\b(?:budget(?:ed)?|spend(?:ing)?|costs?|pay|afford)\b[a-z \-:]{0,30}$")
FOREIGN = re.compile(r"€|\beur|£|\bgbp|\bpounds")
MONTH = re.compile(
    r"^\W{0,3}(?:usd|dollars?|us|bucks|cents?|ct|eur\w*)?\W{0,3}(?:per|a|/|each|every)?\s*(?:month|"
    r"monthly|mo)\b"
)
HOUR = re.compile(
    r"^\W{0,3}(?:usd|dollars?|us|bucks|cents?|ct|eur\w*)?\W{0,3}(?:per|an|/|each|every)?\s*(?:hour|"
    r"hourly|hr|h)\b"
)
YEAR = re.compile(
    r"^\W{0,3}(?:usd|dollars?|us|bucks|cents?|ct|eur\w*)?\W{0,3}(?:per|a|/|each|every)?\s*(?:year|yearly|annum|annually|yr)\b"
)
DAY = re.compile(r"^\W{0,3}(?:usd|dollars?|us|bucks|cents?|ct|eur\w*)?\W{0,3}(?:per|a|/|each|every)?\s*(?:day|daily)\b")
KTOKENS = re.compile(
    r"^\W{0,3}(?:usd|dollars?|us|bucks|cents?)?\W{0,3}(?:per|for|/|a)\s*(?P<n>1 ?million|1 ?thousand|1k|1,?000|"
    r"thousand|k|1m|1,?000,?000|million|m)\s*tokens"
)
KWH = re.compile(r"^[a-z$€\s]{0,12}(?:per|/|a)\s*kwh\b")
PERCENT = re.compile(r"^\s*(?:%|percent|per ?cent)")
UPTIME = re.compile(r"\b(?:up-?time|availability|available|reliab\w+|sla|of the time)\b")
CACHED = re.compile(r"\b(?:prefix|cache[ds]?|shared prompt|same (?:system )?prompt|hit rate)\b")
GPUS_AFTER = re.compile(
    r"^\s*(?:x\s*|×\s*)?(?:(?:nvidia|amd|h\d{3}|a\d{2,4}g?|l\d{1,2}s?|b\d{3}|t4|v100|"
    r"mi\d{3}x?|pcie|sxm|nvl|\d{2,3} ?gb|own|existing|such|big|"
    r"data ?cent(?:er|re))s?\s*){0,4}(?:gpus?|cards?|accelerators?)\b"
)
TIMES_GPU = re.compile(
    r"^\s*(?:x|×)?\s*(?:nvidia |amd )?(?:h\d{3}|a\d{2,4}|l4|l40s?|l20|b\d{3}|t4|v100|mi\d{3}x|gh200|gb\d00)"
)
TENSOR = re.compile(r"\b(?:tensor[- ]?parallel(?:ism)?(?: (?:size|degree))?|tp)\s*(?:of|=|:|size)?\s*$")
PARALLEL_WAYS = re.compile(r"^[- ]?(?:way|fold)? ?tensor[- ]parallel")
PARALLEL = re.compile(r"\btp[ =:-]?(?P<n>\d{1,2})\b")
MULTIPLE = re.compile(
    r"^\s*(?:x|×|times|-?fold)\s+(?:the |our |its |that of )?(?:usual|normal|average|mean|base)|"
    r"^\s*(?:x|×|times|-?fold)\s+as (?:busy|high|much|many)\b"
)
DENIED = re.compile(
    r"\b(?:not|instead of|rather than|no longer|was|were|isn't|aren't)\s+(?:for\s+)?(?:just\s+|only\s+)?\$?$"
)
NEGATIVE = re.compile(r"(?:^|[\s(])(?:-|minus |negative )\$?$")
NOT_DENIED = re.compile(r"\b(?:not|no)\s+(?:more|less|over|above|exceed\w*|below|under)\b")
