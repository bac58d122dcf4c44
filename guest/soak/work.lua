-- Known results for Lua and LuaJIT; numbers stay exact in both (whole, below 2^53).
local h = 5381
local function note(text)
    for i = 1, #text do h = (h * 33 + text:byte(i)) % 4294967296 end
end
local state = 42
local function random()
    state = (state * 16807) % 2147483647
    return state
end
local function sieve(n)
    local is, count = {}, 0
    for i = 2, n do is[i] = true end
    for i = 2, n do
        if is[i] then
            count = count + 1
            for j = i * i, n, i do is[j] = false end
        end
    end
    return count
end
for _ = 1, 3 do note(string.format("%d", sieve(400000))) end
local n, a = 90, {}
for i = 1, n do a[i] = {} for j = 1, n do a[i][j] = random() % 100 end end
local function multiply(x, y)
    local r = {}
    for i = 1, n do
        local row = {}
        for j = 1, n do
            local s = 0
            for k = 1, n do s = s + x[i][k] * y[k][j] end
            row[j] = s % 10007
        end
        r[i] = row
    end
    return r
end
local m = a
for _ = 1, 12 do m = multiply(m, a) end
for i = 1, n do note(string.format("%d", m[i][n + 1 - i])) end
local words = {}
for _ = 1, 200000 do
    local w = string.format("w%d", random() % 3000)
    words[w] = (words[w] or 0) + 1
end
local names = {}
for w in pairs(words) do names[#names + 1] = w end
table.sort(names)
for _, w in ipairs(names) do note(w .. string.format("%d", words[w])) end
local function fib(k) if k < 2 then return k end return fib(k - 1) + fib(k - 2) end
note(string.format("%d", fib(29)))
local text = string.rep("the quick brown fox ", 3000)
note((text:gsub("(%w+) (%w+)", "%2 %1"):sub(1, 500)))
local made = 0
for i = 1, 2000 do
    local f = assert((loadstring or load)("local x = ... local s = " .. i .. " for j = 1, 60 do s = (s * x + j) % 65521 end return s"))
    made = (made + f(i)) % 65521
end
note(string.format("%d", made))
local co = coroutine.wrap(function() for i = 1, 200000 do coroutine.yield(i % 7) end return 0 end)
local total = 0
for _ = 1, 200000 do total = total + co() end
note(string.format("%d", total))
local x = 0.5
for i = 1, 2000000 do x = 3.9 * x * (1 - x) end
note(string.format("%.17g", x))
print(string.format("%d", h))
