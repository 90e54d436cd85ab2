#!/usr/bin/env bash
# What waits for a GPU, in the order of its worth: the tests, the ratios, then Section 3 of the paper at full length.
#
#     benchmarks/gpu.sh DATA OUT [SECONDS]
#
# DATA holds the data sets, OUT gets all that comes of it. It stops by itself after SECONDS (1500 by default). Called again
# with the same OUT it leaves out what is done and goes on with the run that was stopped. OUT/results has the config.yaml
# and results.csv of each run, small enough to be carried away.
set -uo pipefail
data=$(realpath "$1") out=$(realpath -m "$2") end=$((SECONDS + ${3:-1500}))
cd "$(dirname "$0")/.."
mkdir -p "$out/done" "$out/results"
nvidia-smi -L >"$out/machine.txt" 2>&1 || echo "no nvidia-smi" >"$out/machine.txt"

left() { echo $((end - SECONDS)); }

# step NAME COMMAND…: once, its output in OUT/NAME.txt.
step() {
  local name=$1
  shift
  [ -e "$out/done/$name" ] && return
  [ "$(left)" -gt 0 ] || return
  echo "== $name"
  timeout -s INT -k 20 "$(left)" "$@" >"$out/$name.txt" 2>&1 && touch "$out/done/$name"
  tail -n 12 "$out/$name.txt"
}

# run NAME OPTION…: an lth run, gone on with where it was stopped.
run() {
  local name=$1 folder=$out/logs/$1/version_0
  shift
  [ -e "$out/done/$name" ] && return
  [ "$(left)" -gt 30 ] || return
  echo "== $name"
  if [ -e "$out/logs/$name/sweep.yaml" ]; then
    set -- --resume "$out/logs/$name"
  elif [ -e "$folder/config.yaml" ]; then
    set -- --resume "$folder"
  else
    set -- "$@" --experiment "$name" --logs "$out/logs" --data.root "$data" --trainer.accelerator gpu
  fi
  # Interrupted, it keeps a checkpoint; the seconds before the end are for that.
  timeout -s INT -k 20 "$(($(left) - 20))" lth fit "$@" >>"$out/$name.txt" 2>&1 && touch "$out/done/$name"
  tail -n 4 "$out/$name.txt"
  for folder in "$out/logs/$name"/version_0 "$out/logs/$name"/*/version_0; do
    [ -e "$folder/results.csv" ] || continue
    kept=$out/results/$(realpath --relative-to "$out/logs" "$(dirname "$folder")")
    mkdir -p "$kept"
    cp "$folder/config.yaml" "$folder/results.csv" "$folder/run.json" "$kept"
  done
}

step tests pytest -m gpu -n 0
for network in LeNet300 Conv2 Conv4 Conv6; do
  step "together_$network" python -m benchmarks.together --network "$network" --device cuda --graph
done
for network in Conv2 Conv4 Conv6 ResNet20 VGG19; do
  step "images_$network" python -m benchmarks.images --network "$network" --device cuda
  step "images_${network}_bf16" python -m benchmarks.images --network "$network" --device cuda --precision bf16-mixed
done
for network in Conv2 Conv4 Conv6; do
  step "images_${network}_together" python -m benchmarks.images --network "$network" --device cuda --together 5
done
# All replicates and arms of a level as one model: three replicates first, as many as the claims need.
for network in conv2 conv4 conv6; do
  run "figure5_$network" --config "paper/figure5_$network" --replicates 3 --pruning.together true
done
run late_rewinding_resnet20 --config followups/late_rewinding_resnet20 --replicates 1
exit 0
