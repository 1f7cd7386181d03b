// SPDX-License-Identifier: MIT
// Says how far it has come: its library's constructor, its own global object, main().
#include <cstring>
#include <unistd.h>

extern "C" int launch_library_function();

static void say(const char *text)
{
	if (write(STDOUT_FILENO, text, strlen(text)) < 0)
		_exit(3);
}

namespace
{
struct Global {
	char *volatile memory;
	Global() : memory(new char[100])
	{
		say("global\n");
	}
	~Global()
	{
		delete[] memory;
	}
} global;
} // namespace

int main()
{
	say("main\n");
	return launch_library_function();
}
