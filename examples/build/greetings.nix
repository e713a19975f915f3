# SPDX-License-Identifier: MIT
#
# A script with a source to which it refers, and a build that runs the script. Their only program is
# the shell, a static busybox with all applets.
let
  drv =
    name: script:
    derivation {
      inherit name;
      system = "x86_64-linux";
      builder = "/bin/sh";
      args = [
        "-euc"
        script
      ];
    };
  names = builtins.toFile "names.txt" "Ada\nGrace\n";
  greet = drv "greet" ''
    mkdir -p $out/bin
    echo '#!/bin/sh
    while read name; do echo "Hello, $name!"; done < ${names}' > $out/bin/greet
    chmod 755 $out/bin/greet
  '';
in
drv "greetings.txt" ''
  echo "running greet"
  ${greet}/bin/greet > $out
''
