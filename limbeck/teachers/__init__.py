"""How a teacher comes about: trained here, brought from outside and adapted, or several of them as one."""
