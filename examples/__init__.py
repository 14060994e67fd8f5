"""How others use Limbeck."""
