# SPDX-License-Identifier: MIT
#
# Derivations that both Nix and the sandbox build, for test_sandbox_nix.py. Their only program is
# the shell, a static busybox with all applets.
let
  drv =
    name: attributes:
    derivation (
      {
        inherit name;
        system = builtins.currentSystem;
        builder = "/bin/sh";
      }
      // attributes
    );
  run = script: [
    "-euc"
    script
  ];
  source = builtins.toFile "source" "a source\n";
  outputs = drv "outputs" {
    outputs = [
      "out"
      "dev"
      "doc"
    ];
    args = run ''
      mkdir -p $out/bin $dev/include
      echo "#!/bin/sh
      cat ${source}" > $out/bin/run
      chmod 755 $out/bin/run
      echo "$out" > $dev/include/path
      ln -s ${source} $dev/source
      ln -s missing $dev/dangling
      mkdir $dev/empty
      : > $dev/nothing
      echo documentation > $doc
    '';
  };
in
{
  inherit outputs;
  user = drv "user" {
    args = run ''
      $(cat ${outputs.dev}/include/path)/bin/run > $out
      cat ${source} ${outputs}/bin/run >> $out
      echo ${outputs.doc} >> $out
    '';
  };
  # The script and its source are inputs only because ${outputs.dev} refers to them.
  closure = drv "closure" {
    args = run "$(cat ${outputs.dev}/include/path)/bin/run > $out";
  };
  surroundings = drv "surroundings" {
    args = run ''
      (id -u; id -g; pwd; cat /etc/passwd | wc -l; ls /tmp; ls /build; echo $TMPDIR $HOME $PATH) > $out
    '';
  };
  pass-as-file = drv "pass-as-file" {
    passAsFile = [ "text" ];
    text = "a text in ${source}";
    args = run "cat $textPath > $out";
  };
  structured = drv "structured" {
    __structuredAttrs = true;
    words = [
      "one"
      "it's two"
    ];
    outputs = [
      "out"
      "lib"
    ];
    args = run ''
      out=$(sed -n 's/.*"out":"\([^"]*\)".*/\1/p' .attrs.json)
      lib=$(sed -n 's/.*"lib":"\([^"]*\)".*/\1/p' .attrs.json)
      grep words .attrs.sh > $out
      mkdir $lib
      cp .attrs.json $lib/attributes
    '';
  };
  fixed = drv "fixed" {
    outputHashMode = "flat";
    outputHashAlgo = "sha256";
    outputHash = builtins.hashString "sha256" "fixed\n";
    args = run "echo fixed > $out";
  };
  fixed-recursive = drv "fixed-recursive" {
    outputHashMode = "recursive";
    outputHashAlgo = "sha256";
    outputHash = "b7c0783085179dc216b0fc289680bf500e17660e6bd760d0c4c102b3e804e661";
    args = run ''
      mkdir $out
      echo fixed > $out/file
      ln -s file $out/link
      echo "#!/bin/sh" > $out/run
      chmod 755 $out/run
    '';
  };
  modes = drv "modes" {
    args = run ''
      mkdir $out
      cd $out
      echo a > a; chmod 400 a
      echo b > b; chmod 711 b
      echo c > c; chmod 666 c
      ln c d
      ln -s ../../.. outside
      mkdir -p z/y/x; chmod 700 z
      touch -d 2001-01-01 a
    '';
  };
}
