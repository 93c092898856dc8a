"""How fast a bundle samples: `bench_bundle` measures it, engine by engine, and beside torch where asked."""
