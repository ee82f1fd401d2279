#!/bin/sh
# Measures a terrabench on a GPU in one run with a PyTorch pipeline: checks its results against the CPU's first, then prints one
# table. Builds nothing. Takes at most eight minutes on an H100.
#
#     BINARY=target/release/terrabench DEVICE=libtorch:cuda:0 sh benches/gpu.sh
#     DEVICE=flex ONE_OF=1000 sh benches/gpu.sh        # a dry run on the CPU with tiny sizes
#
# BINARY  the program, built with --features libtorch (default target/release/terrabench)
# DEVICE  as for --device (default libtorch:cuda:0)
# ONE_OF  write one of so many of the official samples (default 1), and measure with sizes that fit
# PYTHON  a Python with torch, and h5py for the pipeline (default python3); without torch the peer's column is empty
# FOLDER  where generated files go, and are used again (default a new temporary folder, which is removed)
# MINUTES after which nothing new is measured (default 8)
set -u
BINARY=${BINARY:-target/release/terrabench}
DEVICE=${DEVICE:-libtorch:cuda:0}
ONE_OF=${ONE_OF:-1}
PYTHON=${PYTHON:-python3}
MINUTES=${MINUTES:-8}
HERE=$(cd "$(dirname "$0")" && pwd)
if [ -n "${FOLDER:-}" ]; then mkdir -p "$FOLDER"; else
    FOLDER=$(mktemp -d)
    trap 'rm -rf "$FOLDER"' EXIT
fi
OUT="$FOLDER/out"
export TERRABENCH_CACHE="$FOLDER/cache"
START=$(date +%s)
case $DEVICE in *cuda*) IS_GPU=1 ;; *) IS_GPU=0 ;; esac
if [ "$ONE_OF" -gt 1 ]; then NEIGHBOURS=30000 UPERNET=2 FINETUNE=2; else NEIGHBOURS=1000000 UPERNET=16 FINETUNE=32; fi
MODEL=terrafm-b
[ "$ONE_OF" -gt 1 ] && MODEL=demo
PRECISIONS=f32
[ $IS_GPU = 1 ] && PRECISIONS="f32 tf32 bf16"
case $DEVICE in libtorch) PRECISIONS="f32 bf16" ;; esac
HAS_TORCH=0
$PYTHON -c 'import torch' 2>/dev/null && HAS_TORCH=1
HAS_H5PY=0
$PYTHON -c 'import torch, h5py' 2>/dev/null && HAS_H5PY=1

fail() { echo "gpu.sh: $*" >&2; exit 1; }
# Whether there is time to measure something more.
time_left() { [ $(($(date +%s) - START)) -lt $((60 * MINUTES)) ]; }
# Seconds that a command takes, which must succeed.
seconds() {
    began=$(date +%s.%N)
    "$@" >"$FOLDER/said" 2>&1 || { cat "$FOLDER/said" >&2; fail "failed: $*"; }
    ended=$(date +%s.%N)
    echo "$began $ended" | awk '{ printf "%.2f", $2 - $1 }'
}
in_precision() { # PRECISION COMMAND...: TensorFloat-32 must be allowed before LibTorch starts
    precision=$1; shift
    if [ "$precision" = tf32 ]; then TORCH_ALLOW_TF32_CUBLAS_OVERRIDE=1 "$@"; else "$@"; fi
}
row() { printf '| %-58s | %12s | %12s | %6s |\n' "$1" "$2" "$3" "$4" >>"$FOLDER/table"; }
ratio() { echo "$1 $2" | awk '$1 > 0 && $2 > 0 { printf "%.2f", $1 / $2 }'; }
peer() { # ARGUMENTS...: a rate, or nothing
    [ $HAS_TORCH = 1 ] && time_left && $PYTHON "$HERE/peers/gpu.py" "$@" 2>/dev/null
}

[ -x "$BINARY" ] || fail "no program $BINARY: set BINARY"
: >"$FOLDER/table"
echo "1. Are the results right? (terrabench doctor --device $DEVICE)"
if [ $IS_GPU = 1 ]; then
    "$BINARY" doctor --device "$DEVICE" >"$FOLDER/doctor" 2>&1
    sed -n '/^Self-test/,/^[A-Z]/p' "$FOLDER/doctor"
    grep -q '^  BROKEN .*'"$DEVICE" "$FOLDER/doctor" && fail "the self-test failed: nothing is measured"
fi

echo "2. Generated files of official sizes"
TASKS="m-eurosat m-bigearthnet m-so2sat m-brick-kiln"
DATA="$FOLDER/data"
if [ ! -e "$DATA/made-one-of-$ONE_OF" ]; then
    rm -rf "$DATA"
    "$BINARY" make-files geobench --to "$DATA" --one-of "$ONE_OF" $(printf -- '--task %s ' $TASKS) || fail "no files"
    : >"$DATA/made-one-of-$ONE_OF"
fi

echo "3. Rates"
count() { find "$DATA"/*/"$1" -name '*.hdf5' | wc -l; }
IMAGES=$(count m-eurosat)
for precision in $PRECISIONS; do
    time_left || break
    # Once to find the batch size and to have the files in memory.
    run() {
        in_precision "$precision" "$BINARY" features --data "$DATA" --model $MODEL --weights random:0 --task m-eurosat --device "$DEVICE" \
            --precision "$precision" --no-cache --profile --to "$OUT/features"
    }
    run >/dev/null 2>"$FOLDER/said" || { cat "$FOLDER/said" >&2; fail "features in $precision failed"; }
    took=$(seconds run) || exit 1
    rate=$(echo "$IMAGES $took" | awk '{ printf "%.1f", $1 / $2 }')
    sed -n '/Time of extraction/,$p' "$FOLDER/said" | sed "s/^/    $precision: /"
    theirs=
    [ $HAS_H5PY = 1 ] && [ "$MODEL" = terrafm-b ] && theirs=$(peer features "$DATA/classification_v1.0/m-eurosat" "$DEVICE" "$precision")
    row "m-eurosat, files to features, $precision: images/s" "$rate" "$theirs" "$(ratio "$rate" "${theirs:-0}")"
done
best=$(echo "$PRECISIONS" | awk '{ print $NF }')
if time_left; then
    all=0
    for task in $TASKS; do all=$((all + $(count $task))); done
    run() {
        in_precision "$best" "$BINARY" bench geobench --data "$DATA" --model $MODEL --weights random:0 $(printf -- '--task %s ' $TASKS) \
            --partition default --protocol knn --device "$DEVICE" --precision "$best" --no-cache --out "$OUT/bench"
    }
    took=$(seconds run) || exit 1
    row "four tasks, k-NN, $all images, $best: seconds" "$took" "" ""
fi
time_left && {
    said=$("$BINARY" measure-device --device "$DEVICE" --precision f32 --work neighbours --size $NEIGHBOURS) || fail "neighbours differ"
    row "neighbours (equal to the CPU's), $NEIGHBOURS x 768: queries/s" "${said% *}" "" ""
}
for work in upernet finetune; do
    size=$UPERNET
    [ $work = finetune ] && size=$FINETUNE
    for precision in f32 bf16; do
        time_left || break
        case "$PRECISIONS" in *$precision*) ;; *) continue ;; esac
        said=$("$BINARY" measure-device --device "$DEVICE" --precision $precision --work $work --size $size) || fail "$work failed"
        theirs=
        [ $precision = f32 ] && theirs=$(peer $work "$DEVICE" $size)
        row "$work step, batch $size, $precision (loss off by ${said#* }): images/s" "${said% *}" "$theirs" "$(ratio "${said% *}" "${theirs:-0}")"
    done
done

echo
echo "$("$BINARY" --version), $DEVICE, model $MODEL, $(date -u +%Y-%m-%d), after $(($(date +%s) - START)) s"
printf '| %-58s | %12s | %12s | %6s |\n|---|---:|---:|---:|\n' "what" "terrabench" "PyTorch" "ratio"
cat "$FOLDER/table"
