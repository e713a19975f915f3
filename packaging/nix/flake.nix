# SPDX-License-Identifier: MIT
#
# In a checkout: nix run ./packaging/nix -- validate examples/requests
{
  description = "Checks, canonicalizes and hashes the messages of the tvix build protocol";

  inputs.nixpkgs.url = "github:NixOS/nixpkgs/nixos-unstable";

  outputs =
    { self, nixpkgs }:
    {
      packages = nixpkgs.lib.genAttrs [ "aarch64-linux" "x86_64-linux" ] (system: {
        default = nixpkgs.legacyPackages.${system}.python3Packages.callPackage ./package.nix { };
      });
    };
}
