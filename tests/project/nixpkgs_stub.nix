# SPDX-License-Identifier: MIT
#
# Evaluates the flake with the few parts of nixpkgs that it uses, for a test without nixpkgs. Dependencies are their
# names, and packages are the arguments of buildPythonPackage.
let
  lib = {
    cleanSource = toString;
    genAttrs = names: f: builtins.listToAttrs (map (name: { inherit name; value = f name; }) names);
    licenses.mit = "MIT";
    optionals = condition: list: if condition then list else [ ];
    platforms.linux = [ "linux" ];
  };
  packages = {
    inherit lib;
    buildPythonPackage = arguments: arguments;
    libblake3.src = "/blake3";
    pythonOlder = version: true;
  };
  callPackage =
    path: overrides:
    let
      function = import path;
      named = builtins.mapAttrs (name: _: packages.${name} or name) (builtins.functionArgs function);
    in
    function (named // overrides);
  nixpkgs = {
    inherit lib;
    legacyPackages = lib.genAttrs [ "aarch64-linux" "x86_64-linux" ] (system: {
      python3Packages.callPackage = callPackage;
    });
  };
  flake = import ../../packaging/nix/flake.nix;
in
(flake.outputs { self = flake; inherit nixpkgs; }).packages
