# SPDX-License-Identifier: MIT
# Builder of the bundle: links every part under its store name.
. "$setup"
mkdir "$out"
for part in $parts; do
  ln -s "$part" "$out/$(basename "$part")"
done
say "$(ls "$out" | wc -l) parts"
