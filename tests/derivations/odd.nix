# SPDX-License-Identifier: MIT
#
# Derivations with what is rare, for test_nix.py; instantiate.py has Nix make .drv files of them.
let
  drv =
    name: attributes:
    derivation (
      {
        inherit name;
        system = "x86_64-linux";
        builder = "/bin/sh";
        args = [
          "-c"
          "echo >$out"
        ];
      }
      // attributes
    );
  latin1 = builtins.readFile ./latin-1.txt;
in
rec {
  content-addressed = drv "content-addressed" {
    __contentAddressed = true;
    outputHashMode = "recursive";
    outputHashAlgo = "sha256";
    outputs = [
      "out"
      "dev"
    ];
  };
  deferred = drv "deferred" { uses = content-addressed.dev; };
  deferred-further = drv "deferred-further" { uses = deferred; };
  impure = drv "impure" { __impure = true; };
  fixed-flat = drv "fixed-flat" {
    outputHashMode = "flat";
    outputHashAlgo = "sha256";
    outputHash = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
  };
  fixed-recursive = drv "fixed-recursive" {
    outputHashMode = "recursive";
    outputHashAlgo = "sha1";
    outputHash = "da39a3ee5e6b4b0d3255bfef95601890afd80709";
  };
  structured-attributes = drv "structured-attributes" {
    __structuredAttrs = true;
    list = [
      1
      "two"
      { three = null; }
    ];
    text = "\"quoted\" \\ ünïcode";
  };
  pass-as-file = drv "pass-as-file" {
    passAsFile = [ "text" ];
    text = "a long text";
  };
  references-graph = drv "references-graph" {
    exportReferencesGraph = [
      "graph"
      fixed-flat
    ];
  };
  placeholders = drv "placeholders" {
    outputs = [
      "out"
      "lib"
    ];
    args = [
      "-c"
      "echo ${builtins.placeholder "lib"}/lib >$out"
    ];
    flags = "--prefix=${builtins.placeholder "out"} --libdir=${builtins.placeholder "lib"}/lib";
    doc = builtins.placeholder "doc";
  };
  many-outputs = drv "many-outputs" {
    outputs = [
      "out"
      "bin"
      "dev"
      "lib"
      "man"
    ];
    empty = "";
    sources = [ ./latin-1.txt ];
    uses = [
      fixed-flat
      placeholders.lib
    ];
  };
  escapes = drv "escapes" {
    quotes = "\"'\\\"\\\\";
    lines = "\n\r\n\t\\n\\r\\t";
    dollar = "\${out} $out";
    control = builtins.fromJSON ''"\u0001\u001b\u007f"'';
    brackets = "]),(\"\",\"\")],[(\"";
  };
  unicode = drv "unicode" {
    greeting = "grüße, 世界, 🎉";
    "ключ" = "значение";
    args = [ "ünïcode" ];
  };
  latin-1-value = drv "latin-1-value" { inherit latin1; };
  latin-1-argument = drv "latin-1-argument" { args = [ latin1 ]; };
  latin-1-key = drv "latin-1-key" { ${latin1} = "value"; };
}
