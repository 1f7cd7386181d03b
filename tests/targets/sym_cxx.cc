/* SPDX-License-Identifier: MIT */
/* C++ functions to be named: namespaces, templates, members, lambdas, constructors, inlines. */
#include <algorithm>
#include <cstdio>
#include <map>
#include <string>
#include <vector>

static volatile int sink;

namespace sym
{
namespace inner
{
template <typename T> inline __attribute__((always_inline)) T twice(T x)
{
	sink = static_cast<int>(x);
	return x + x;
}
} // namespace inner

template <typename T, int N> struct box {
	T values[N];

	__attribute__((noinline)) explicit box(T start)
	{
		for (int i = 0; i < N; i++)
			values[i] = inner::twice(start + i);
	}
	__attribute__((noinline)) ~box()
	{
		sink = N;
	}
	__attribute__((noinline)) T sum() const
	{
		T total = 0;

		for (int i = 0; i < N; i++)
			total += inner::twice(values[i]);
		return total;
	}
	bool operator<(const box &other) const
	{
		return sum() < other.sum();
	}
};

struct base {
	virtual ~base() = default;
	virtual int work(int x) = 0;
};

struct derived final : base {
	int work(int x) override;
};

__attribute__((noinline)) int derived::work(int x)
{
	return inner::twice(x) - 1;
}

__attribute__((noinline)) int overloaded(int x)
{
	return inner::twice(x);
}

__attribute__((noinline)) long overloaded(const std::string &text)
{
	return inner::twice(static_cast<long>(text.size()));
}
} // namespace sym

namespace
{
__attribute__((noinline)) int hidden(std::vector<int> &numbers)
{
	std::sort(numbers.begin(), numbers.end(), [](int a, int b) { return a > b; });
	auto count = [&numbers](int limit) __attribute__((noinline))
	{
		int n = 0;

		for (int number : numbers)
			n += number < sym::inner::twice(limit);
		return n;
	};
	return count(sink);
}
} // namespace

extern "C" __attribute__((noinline)) int sym_c_linkage(int x)
{
	return sym::inner::twice(x);
}

int main(int argc, char **)
{
	sym::box<int, 3> a(argc);
	sym::box<long, 4> b(argc);
	sym::derived object;
	std::vector<int> numbers(static_cast<size_t>(argc) + 5, argc);
	std::map<std::string, int> names;

	names["one"] = 1;
	sink = a.sum() + static_cast<int>(b.sum()) + object.work(argc) + sym::overloaded(argc);
	sink = sink + static_cast<int>(sym::overloaded(std::string("text"))) + hidden(numbers);
	std::printf("%d %d %d\n", sink, sym_c_linkage(argc), names["one"] + (a < a));
	return 0;
}
