local primes = {}
for number = 2, 50 do
  local prime = true
  for _, divisor in ipairs(primes) do
    prime = prime and number % divisor ~= 0
  end
  if prime then
    table.insert(primes, number)
  end
end
local text = _VERSION .. " found the primes " .. table.concat(primes, " ") .. "\n"
io.write(text)
assert(io.open(os.getenv("out"), "w")):write(text)
-- SPDX-License-Identifier: MIT
