# SPDX-License-Identifier: MIT
#
# The derivations of make_lua.py, for Nix. The arguments are the paths of their sources.
{ ziglang, source }:
let
  lua = derivation {
    name = "lua-5.4.4";
    system = "x86_64-linux";
    builder = "/bin/sh";
    args = [
      "-euc"
      (builtins.readFile ./compile.sh)
    ];
    ziglang = builtins.path {
      name = "ziglang-0.17.1";
      path = ziglang;
    };
    src = builtins.path {
      name = "lua-5.4.4-source";
      path = source;
    };
  };
in
derivation {
  name = "primes.txt";
  system = "x86_64-linux";
  builder = "${lua}";
  args = [
    "-e"
    (builtins.readFile ./primes.lua)
  ];
}
