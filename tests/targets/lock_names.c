/* SPDX-License-Identifier: MIT */
/*
 * Links every function that waits or wakes, so that a static program has them all; never run.
 */
#include <pthread.h>
#include <semaphore.h>
#include <stdint.h>
#include <stdlib.h>
#include <threads.h>

#define ADDRESS(function) ((uintptr_t)(function))

int main(void)
{
	const volatile uintptr_t addresses[] = {
		ADDRESS(pthread_mutex_lock),
		ADDRESS(pthread_mutex_timedlock),
		ADDRESS(pthread_mutex_unlock),
		ADDRESS(pthread_rwlock_rdlock),
		ADDRESS(pthread_rwlock_wrlock),
		ADDRESS(pthread_rwlock_timedrdlock),
		ADDRESS(pthread_rwlock_timedwrlock),
		ADDRESS(pthread_rwlock_unlock),
		ADDRESS(pthread_cond_wait),
		ADDRESS(pthread_cond_timedwait),
		ADDRESS(pthread_cond_signal),
		ADDRESS(pthread_cond_broadcast),
		ADDRESS(pthread_barrier_wait),
		ADDRESS(pthread_join),
		ADDRESS(pthread_timedjoin_np),
		ADDRESS(sem_wait),
		ADDRESS(sem_timedwait),
		ADDRESS(sem_post),
		ADDRESS(mtx_lock),
		ADDRESS(mtx_timedlock),
		ADDRESS(mtx_unlock),
		ADDRESS(cnd_wait),
		ADDRESS(cnd_timedwait),
		ADDRESS(cnd_signal),
		ADDRESS(cnd_broadcast),
		ADDRESS(thrd_join),
		ADDRESS(malloc), /* takes musl's lock for itself */
#ifdef __GLIBC__
		ADDRESS(pthread_mutex_clocklock),
		ADDRESS(pthread_rwlock_clockrdlock),
		ADDRESS(pthread_rwlock_clockwrlock),
		ADDRESS(pthread_cond_clockwait),
		ADDRESS(pthread_clockjoin_np),
		ADDRESS(sem_clockwait),
#endif
	};

	return addresses[0] == 0;
}
