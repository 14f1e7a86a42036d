"""One rule R for each thing that the writer of modules has to get right, by what that is."""

from __future__ import annotations

FEATURES = {
    "clip": "from std import clip_global\nrule R { hyper lr = 0.1 in (0, inf) w' = w - lr*clip_global(g, 0.5) }",
    "autoclip": "from std import autoclip\nrule R { hyper lr = 0.1 in (0, inf) w' = w - lr*autoclip(g, 0.4, 5) }",
    "model state": "rule R { state n per model = 1 n' = 0.5*n + norm(g per model) w' = w - 0.1*g/n' }",
    "quantile": "rule R { q = quantile(abs(g), 0.7) w' = w - 0.1*clip(g, -q, q) }",
    "every": "rule R { hyper int k = 3 in [1, inf) state s = w every k { s' = (s + w)/2 w' = s' - 0.1*g } else { w' = w - 0.1*g } }",
    "data branch": "rule R { when norm(g) > 0.8 { w' = w - 0.1*g/norm(g) } else { w' = w - 0.1*g } }",
    "truths": "rule R { state seen = false seen' = seen or max(abs(g)) > 0.5 w' = w - where(seen', 0.05, 0.1)*g }",
    "window": "rule R { state h[3] = nan h' = push(h, g) w' = w - 0.1*mean(h') }",
    "draws": "rule R { w' = w - 0.1*(g + 0.1*normal()) - 0.01*exponential()*uniform() }",
    "nested": "rule R { when rank >= 2 { when rows > cols { u = g.T @ g v = g @ u } else { v = (g @ g.T) @ g } } "
    "else { v = g^3 } w' = w - 0.1*v }",
    "average": "from std import weights_ema\nrule R { w' = w - 0.1*g eval = weights_ema(w', 0.7) }",
    "division by zero": "rule R { a = 1/(t - 1) w' = w - 0.1*g/(1 + a) }",
    "swap": "rule R { state a = 0 state b = 1 a' = b b' = a w' = w - 0.1*(a - b)*g }",
    "model mean of rows": "rule R { m = mean(abs(g) per model) w' = w - 0.1*g/(m + 0.1) }",
    "far gradient": "rule R { w' = w - 0.1*grad(w - 0.2*grad(w + 0.1*g)) }",
    "gradient at a number": "rule R { w' = w - 0.1*grad(pi) }",
    "loss": "rule R { w' = w - 0.1*min(1, loss)*g }",
    "norm per group": "rule R { hyper lr = 0.1 in (0, inf) w' = w - lr*g/(norm(g per group) + norm(w per model)) }",
    "state per group": "rule R { state n per group = 1 n' = 0.5*n + mean(abs(g) per group) w' = w - 0.1*g/n' }",
    "model from groups": "rule R { n = max(g per group) m = sum(n per model) w' = w - 0.1*g/(1 + m) }",
    "window per model": "rule R { state h[3] per model = nan h' = push(h, norm(g per model)) w' = w - "
    "0.1*g*max(h')/(min(h') + count(h')) }",
    "quantile per model": "rule R { q = quantile(abs(g), 0.3 per model) w' = w - 0.1*clip(g, -q, q) }",
    "draws of all": "rule R { w' = w - 0.1*g*uniform(per model)*uniform(per group)*exponential(per tensor) }",
    "matrix of a short choice": "rule R { when rank >= 2 { state p[rows, rows] = eye(rows) every 2 { p' = p + g @ g.T } u = p @ g } else "
    "{ u = g } w' = w - 0.1*u }",
    "rows": "rule R { when rank >= 2 { state r per row = 1 r' = r + sum(g^2 per row) u = g/sqrt(r') } else { u = g } w' = w - 0.1*u }",
    "window of rows": "rule R { when rank >= 2 { state h[2] per row = 0 h' = push(h, mean(g per row)) u = g - "
    "mean(mean(h') per tensor) } else { u = g } w' = w - 0.1*u }",
    "as_matrix": "from std import centralize, agc\nrule R { w' = w - 0.1*centralize(agc(g, 0.1)) }",
    "identity": "rule R { when rank == 2 { u = (eye(rows) + 0.1*(g @ g.T)) @ g } else { u = g } w' = w - 0.1*u }",
    "nested every": "rule R { state a = 0 state b = w every 2 { every 3 { a' = a + w } else { b' = (b + a)/2 } } else { "
    "a' = a - g } w' = w - 0.1*(a' + g) + 0.01*b' }",
    "guarded gradient": "rule R { every 2 { u = grad(w - 0.1*g) } else { u = g } w' = w - 0.1*u }",
    "a gradient on the other side": "rule R { every 2 { u = g } else { u = grad(w - 0.1*g) } w' = w - 0.1*u }",
    "gradient, then norm": "rule R { u = grad(w + 0.1*g) n = norm(u per model) w' = w - 0.1*u/(n + 1) }",
    "norm of a guarded gradient": "rule R { every 2 { u = grad(w + 0.1*g) } else { u = g } n = norm(u per model) w' = w "
    "- 0.1*u/(n + 1) }",
    "curvature": "rule R { z = normal() h = z*hvp(z) w' = w - 0.1*g/(1 + abs(h)) }",
    "a loop over what the model was asked": "rule R { d = grad(w + 0.1) repeat 4 { state y = d y' = 1.5*y - 0.5*y*mean(y^2)/(1 + "
    "mean(d^2)) } w' = w - 0.1*y }",
    "losses elsewhere": "rule R { z = normal() every 2 { c = loss_at(w - z*norm(g per model)) - loss } else { c = "
    "loss } w' = w - 0.1*tanh(c)*z }",
    "skipped step": "rule R { when norm(g per model) < 1 { w' = w - 0.1*g } }",
    "new weights read": "rule R { state a = w a' = 0.9*a + 0.1*w' w' = w - 0.1*g - 0.01*a }",
    "shared update": "rule R { state a = 0 state b = 0 x = 0.5*a + g a' = x b' = x w' = w - 0.1*(a' + b') }",
    "held in a block": "rule R { state s = w when t > 2 { s' = 0.5*s + 0.5*w w' = s' } else { w' = w - 0.1*g } }",
    "a view kept": "rule R { state m = 0 when rank == 2 { x = m.T m' = m + g u = g @ (x @ m') } else { m' = m - g u = g "
    "+ m } w' = w - 0.1*u }",
    "chosen by a number": "rule R { state m = w m' = 0.5*m + g u = where(t < 0, w, m) w' = u/2 + u/4 - 0.1*m' }",
    "roots of a number below zero": "rule R { hyper a = 0.5 in [0, 1] b = where(sqrt((a - 1)^3) > 0, 1, 2) w' = w - 0.1*g*b }",
    "numbers": "rule R { a = where(t > 3, log(t - 3), -1) b = max(a, 1/(t - 2)) w' = w - 0.1*g/(1 + abs(clip(b, -5, 5))) }",
    "hyper as state": "rule R { hyper lr = 0.1 in (0, inf) state s = lr state n per tensor = numel s' = s*where(g > 0, "
    "0.9, 1.1) w' = w - s'*g*(1 + 1/n) n' = n + 1 }",
    "chosen by data": "rule R { state late per tensor = false late' = late or norm(g) > 0.3 when late' { u = sign(g) } "
    "else { u = g } w' = w - 0.05*u }",
    "sizes of sides": "rule R { when t > 2 { u = norm(g) } else { u = g } v = where(t > 3, 2, g) w' = w - 0.1*g/(1 + "
    "sum(abs(u)) + sum(abs(v))) }",
    "sides of blocks": "rule R { state a = 0 when t > 2 { u = 1 a' = a + g } else { u = g a' = a - u } w' "
    "= w - 0.1*g/(1 + sum(u)^2) + 0.01*a' }",
    "repeat": "def f(x) { repeat 4 { state y = x y' = y - 0.1*y^3 + 0.01*g } return y } rule R { w' = w - 0.1*f(g) }",
    "count per group": "rule R { c = count(g per group) + count(g per model) w' = w - 0.1*g/c }",
    "window beside elements": "rule R { state h[3] per tensor = 0 h' = push(h, norm(g)) x = h'*g + h' w' = w - 0.01*mean(x) }",
    "one block in another": "rule R { state h = 0 every 2 { when rank >= 2 { h' = 0.9*h + g*g } } w' = w - 0.1*(g + h') }",
    "settings decide": "rule R { hyper bool f = true when f { state s per model = 1 s' = s + norm(g per model) k = s' } "
    "else { k = 1 } w' = w - 0.1*g/k }",
    "one value reduced": "rule R { a = sum(rank) + max(rank) + mean(norm(g)) + count(numel) + quantile(rank, 0.3) w' = w - 0.01*a*g }",
    "a share that is a setting": "rule R { hyper q = 0.4 in [0, 1] w' = w - 0.1*g*quantile(norm(g), q) }",
    "products of two and three": "rule R { state m = 0 state n = 0 m' = m + 0.5*g*w n' = n - 0.3*w*g^3*sign(g) w' = w - 0.1*(m' + n') }",
    "functions of two": "rule R { w' = w - 0.1*(mod(g, 0.3) + atan2(g, w) + atan2(2, g) + cbrt(g)) }",
    "share of places": "rule R { when rank >= 2 { a = quantile(places(cols), 0.3 per tensor) } else { a = 1 } w' = w - 0.01*a*g }",
    "counts of a view": "rule R { when rank >= 2 { x = as_matrix(g) n = sum(as_param(x/count(x per row) + count(x))) } "
    "else { n = 2 } w' = w - 0.1*g/(2 + n) }",
    "a count that stands still": "rule R { state n per tensor = numel n' = numel + rank w' = w - 0.1*g/n }",
    "nothing on one side": "rule R { state a = 0 state b = 0 when t > 2 { a' = a when rank == 2 { b' = g } } else { b' = b + g "
    "a' = 2 } w' = w - 0.1*(g + a' + b') }",
    "sizes alone": "rule R { when rank >= 2 { a = var(places(cols) per tensor) + norm(eye(rows)) } else { a = 1 } w' = w - 0.01*a*g }",
    "runs": "rule R { state v per 2 = mean(w per 2) state h[3] per 3 = nan v' = 0.5*v + sum(g^2 per 2) h' = push(h, norm(g per 3)) "
    "a = where(v' > 1, v', count(g per 2)) b = where(count(g per 4) > 1, std(g per 4), 0) w' = w - 0.1*g/(1 + a*b + max(h') "
    "+ mean(v' per model)) + 0.01*tanh(count(g per 3)) }",
    "two loops": "def f(x, n) { repeat n { state y = x y' = cos(y) - 0.1*y + 0.01*t } return y } rule R { hyper int n = "
    "4 in [0, 9] w' = w - 0.1*f(g, n)*f(w, n) }",
}  # fmt: skip
