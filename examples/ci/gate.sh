#!/bin/sh
# The steps of the gate, for any CI: `sh gate.sh STEP`. The GitHub action and the GitLab job call the same steps in this order.
#
#   restore   make the folder of records, which the CI's cache has filled if there was an earlier run
#   measure   run the benchmark; cells that are recorded are not computed again
#   check     compare with the reference; writes check.xml (JUnit), summary.md and the exit code to DIR/
#   comment   print the comment for the pull request: the table of changes below a marker
#   accept    make the current records the reference (by hand, or in a job that someone starts)
#   verdict   exit with the code of `check`: 0 passed, 1 accuracy fell or a cell is missing, 2 unusable input
#
# Settings, all from the environment:
#   TERRABENCH            the program                                  [terrabench]
#   TERRABENCH_SUITE      the suite                                    [geobench]
#   TERRABENCH_ARGS       what `bench` is given, as shell words        [--demo]
#   TERRABENCH_RESULTS    records, kept from run to run                [terrabench-results]
#   TERRABENCH_REFERENCE  the accepted records, in the repository      [reference]
#   TERRABENCH_REPORT     folder for check.xml, summary.md             [terrabench-report]
set -eu

program=${TERRABENCH:-terrabench}
suite=${TERRABENCH_SUITE:-geobench}
arguments=${TERRABENCH_ARGS:---demo}
results=${TERRABENCH_RESULTS:-terrabench-results}
reference=${TERRABENCH_REFERENCE:-reference}
report=${TERRABENCH_REPORT:-terrabench-report}

case "${1:-}" in
restore)
    mkdir -p "$results" "$report"
    records=$(find "$results" -path '*/records/*.json' | wc -l)
    echo "records from earlier runs: $((records))"
    if [ ! -d "$reference" ]; then
        echo "error: $reference: expected the accepted records, found no such folder" >&2
        echo "help: run \`sh gate.sh measure\`, then \`sh gate.sh accept\`, and commit $reference/" >&2
        exit 2
    fi
    ;;
measure)
    # The arguments are shell words, so that names may hold spaces.
    eval "set -- $arguments"
    "$program" bench "$suite" "$@" --out "$results"
    ;;
check)
    mkdir -p "$report"
    rm -f "$report/summary.md" "$report/check.xml"
    code=0
    "$program" check --records "$results" --reference "$reference" \
        --junit "$report/check.xml" --summary "$report/summary.md" || code=$?
    echo "$code" > "$report/exit-code"
    ;;
comment)
    # The marker lets the next run find this comment and replace it.
    echo '<!-- terrabench -->'
    if [ -f "$report/summary.md" ]; then
        cat "$report/summary.md"
    else
        echo 'Accuracy was not compared: the input could not be used. See the log of the job.'
    fi
    ;;
accept)
    "$program" check --records "$results" --reference "$reference" --update
    ;;
verdict)
    exit "$(cat "$report/exit-code")"
    ;;
*)
    echo "usage: sh gate.sh restore|measure|check|comment|accept|verdict" >&2
    exit 2
    ;;
esac
