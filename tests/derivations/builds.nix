# SPDX-License-Identifier: MIT
#
# Derivations whose commands say what Nix gave them, for test_nix_files.py; build.py has Nix build
# them and keeps what they say.
let
  drv =
    name: attributes:
    derivation (
      {
        inherit name;
        system = "x86_64-linux";
        builder = "/usr/bin/python3";
        args = [
          "-I"
          ./record.py
        ];
      }
      // attributes
    );
  empty = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
in
{
  plain = drv "plain" {
    outputs = [
      "out"
      "dev"
    ];
    args = [
      "-I"
      ./record.py
      "--prefix=${builtins.placeholder "out"}"
      (builtins.placeholder "doc")
    ];
    HOME = "/home";
    NIX_BUILD_CORES = "7";
    dev_lib = "${builtins.placeholder "dev"}/lib:${builtins.placeholder "dev"}/lib64";
    lines = "\n\t\\ \"quoted\" 'ü'";
  };
  fixed = drv "fixed" {
    outputHashMode = "flat";
    outputHashAlgo = "sha256";
    outputHash = empty;
  };
  pass-as-file = drv "pass-as-file" {
    passAsFile = "text\n\tempty  path nowhere\rHOME ünïcode passAsFile text";
    text = "a long text in ${builtins.placeholder "out"}";
    empty = "";
    path = "one";
    pathPath = "two";
    textPathPath = "three";
    HOME = "/home";
    "ünïcode" = "grüße\n";
    "textPat" = "a variable";
  };
  pass-all-as-files = drv "pass-all-as-files" {
    passAsFile = [
      "args"
      "builder"
      "name"
      "out"
      "system"
    ];
  };
  structured-attributes = drv "structured-attributes" {
    __structuredAttrs = true;
    outputs = [
      "out"
      "dev"
    ];
    passAsFile = [ "text" ];
    text = "it's \"quoted\" \\ $HOME `x` ünïcode 🎉\n\t";
    control = builtins.fromJSON ''"\u0001\b\f\r\u001b\u007f\u0085\u2028"'';
    empty = "";
    yes = true;
    no = false;
    nothing = null;
    "not a name" = 1;
    "9lives" = 9;
    _under_Score9 = 1;
    "" = "no name";
    "ключ" = 1;
    words = [
      "one"
      "it's two"
      3
      true
      false
      null
    ];
    fractions = [ 1.5 ];
    lists = [ [ ] ];
    none = [ ];
    object = {
      b = 1;
      "a'b c" = "d";
      "" = false;
      Z = null;
    };
    objects.inner = { };
    nobody = { };
    flags = "--prefix=${builtins.placeholder "out"} ${builtins.placeholder "doc"}";
    libraries = [ "${builtins.placeholder "dev"}/lib" ];
    by_output.${builtins.placeholder "dev"} = builtins.placeholder "out";
    HOME = "/home";
  };
  structured-fixed = drv "structured-fixed" {
    __structuredAttrs = true;
    outputHashMode = "flat";
    outputHashAlgo = "sha256";
    outputHash = empty;
  };
  numbers = drv "numbers" { __json = builtins.readFile ./numbers.json; };
}
