# SPDX-License-Identifier: MIT
#
# A small package set without nixpkgs. It builds with the host's /bin/sh, cc
# and coreutils, so outside of Nix's sandbox (--option sandbox false).
let
  system = "x86_64-linux";

  # Sourced by every package's script.
  setup = builtins.toFile "setup.sh" ''
    # SPDX-License-Identifier: MIT
    say() { printf '%s: %s\n' "$name" "$*" >&2; }
  '';

  package =
    { name, script, ... }@attrs:
    derivation (
      {
        inherit system setup;
        builder = "/bin/sh";
        args = [ "-eu" "-c" (". \"$setup\"\n" + script) ];
        PATH = "/usr/bin:/bin";
      }
      // removeAttrs attrs [ "script" ]
    );
in
rec {
  # Fixed output: Nix knows the hash before it builds, and lets the build use
  # the network. `nix-store --add-fixed sha256 sources/words.txt` does as well.
  words = package {
    name = "words.txt";
    url = "https://example.org/words.txt";
    impureEnvVars = [ "http_proxy" "https_proxy" ];
    outputHashAlgo = "sha256";
    outputHashMode = "flat";
    outputHash = builtins.hashFile "sha256" ./sources/words.txt;
    script = ''curl --fail --location --output "$out" "$url"'';
  };

  # Several outputs; the source is a folder with a subfolder, an executable
  # and a symbolic link.
  libgreet = package {
    name = "libgreet-1.2";
    src = ./sources/libgreet;
    outputs = [ "out" "dev" "doc" ];
    greeting = "Hello";
    cflags = [ "-O2" "-fPIC" "-Wall" ];
    script = ''
      mkdir -p "$out/lib" "$dev/include" "$doc"
      cc $cflags "-DGREETING=\"$greeting\"" -shared -o "$out/lib/libgreet.so" "$src/greet.c"
      cp -P "$src"/*.h "$dev/include"
      "$src/tools/line-count.sh" "$src/greet.c" > "$doc/lines"
    '';
  };

  # The same in another tongue: overriding as users do it.
  libgreet-de = derivation (libgreet.drvAttrs // {
    name = "libgreet-de-1.2";
    greeting = "Grüß Gott";
  });

  # Chain: libgreet -> greet -> greet-check. Uses two outputs of libgreet.
  greet = package {
    name = "greet-0.3";
    src = builtins.path {
      name = "greet-source";
      path = ./sources/greet;
      filter = path: type: baseNameOf path != "README.md";
    };
    lib = libgreet;
    inherit (libgreet) dev;
    script = ''
      mkdir -p "$out/bin"
      cc "-I$dev/include" "-L$lib/lib" "-Wl,-rpath,$lib/lib" -o "$out/bin/greet" "$src/main.c" -lgreet
    '';
  };

  greet-check = package {
    name = "greet-check.txt";
    program = greet;
    expected = builtins.toFile "expected.txt" "Hello, Nix!\n";
    script = ''
      "$program/bin/greet" Nix > "$out"
      cmp "$out" "$expected"
    '';
  };

  # Uses only the third output of libgreet.
  manual = package {
    name = "greet-manual";
    inherit (libgreet) doc;
    chapters = [ "intro" "usage" "faq" ];
    pages = 12;
    draft = false;
    index = true;
    script = ''
      mkdir "$out"
      for chapter in $chapters; do cp "$doc/lines" "$out/$chapter"; done
    '';
  };

  # A source that is a symbolic link itself, and a folder of unicode files.
  translations = package {
    name = "greet-translations";
    po = ./sources/po;
    default = ./sources/default.po;
    languages = ''
      de	Deutsch
      el	Ελληνικά
      ja	日本語
      he	עברית
      🖖	tlhIngan Hol
    '';
    script = ''
      mkdir "$out"
      cp "$po"/* "$out"
      ln -s "$(basename "$(readlink "$default")")" "$out/default.po"
      printf %s "$languages" > "$out/LANGUAGES"
    '';
  };

  # Values that a careless reader of derivations trips over.
  quoting = package {
    name = "quoting.sh";
    backslashes = "C:\\greet\\new\\table \\\\server\\share";
    quotes = "She said \"it's `fine`\", \${really} $$ \$out";
    control = "tab\there, return\rthere, bell${builtins.fromJSON ''"\u0007"''}, newline\n";
    literal = ''\n is not a newline, \" not a quote, \x41 not an A'';
    brackets = "Derive([(\"out\",\"\",\"\",\"\")],[],[],\"\",\"\",[],[])";
    equals = "a=b=c";
    spaces = "  two before and after  ";
    empty = "";
    motto = builtins.readFile ./sources/motto.latin1.txt; # not UTF-8
    script = ''
      set > "$out"
      chmod +x "$out"
    '';
  };

  # For another machine, and an executable source file.
  line-count-arm = package {
    name = "line-count.txt";
    system = "aarch64-linux";
    tool = ./sources/libgreet/tools/line-count.sh;
    input = words;
    script = ''"$tool" < "$input" > "$out"'';
  };

  # Everything together, with the builder in a file of its own.
  bundle = package {
    name = "greet-bundle";
    script = "";
    args = [ "-eu" ./sources/bundle.sh ];
    parts = [
      greet
      greet-check
      libgreet-de
      libgreet.doc
      manual
      quoting
      translations
      words
    ];
  };
}
