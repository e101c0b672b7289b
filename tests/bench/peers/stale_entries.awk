# Counts the entries of a connection tracking table that are stale, by the definition of kdnsctl's bench: UDP, sent to the
# address and port of a Service, answered by what does not serve it. Tokens, not columns; run as
#     mawk -f stale_entries.awk SERVING TABLE
# with lines `ADDRESS PORT ENDPOINT PORT` in SERVING. Prints STALE ENTRIES UNREADABLE.

FNR == NR {
    services[$1 " " $2]
    serving[$1 " " $2 " " $3 " " $4]
    next
}

{
    protocol = 0
    tuples = 0
    sport = dport = reply_sport = ""
    for (i = 1; i <= NF; i++) {
        token = $i
        at = index(token, "=")
        if (!at) {
            if (!tuples && token == "udp") protocol = 1
            continue
        }
        key = substr(token, 1, at - 1)
        if (key == "src") {
            tuples++
            if (tuples == 2) reply_src = substr(token, 5)
        } else if (key == "dst") {
            if (tuples == 1) dst = substr(token, 5)
        } else if (key == "sport") {
            if (tuples == 2) reply_sport = substr(token, 7)
        } else if (key == "dport") {
            if (tuples == 1) dport = substr(token, 7)
        }
    }
    if (tuples != 2) {
        unreadable++
        next
    }
    entries++
    if (protocol && (dst " " dport) in services && !((dst " " dport " " reply_src " " reply_sport) in serving)) stale++
}

END { print stale + 0, entries + 0, unreadable + 0 }
